"""`python export.py --model=RUN`: a model for TensorFlow Serving and others, checked on images.

The default is the pretrained model, checked on drawn pedestrians unless a
data set is named. An export is run at once: its embeddings, mAP and rank-1 must agree with those
of the model, or the exit code is 1. Beside a SavedModel goes NAME-ranker, which ranks and
re-ranks embeddings.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import data, inference, models, reranking, serving
from keras_reid.cli.common import FeatureOptions, RunOptions, say, stored_features
from keras_reid.cli.options import Command, option
from keras_reid.cli.startup import import_keras
from keras_reid.errors import InputError
from keras_reid.io import check_writable


@dataclass(frozen=True, kw_only=True)
class ExportOptions(FeatureOptions, RunOptions):
    """What is exported, and where to."""

    export_dir: str = option(
        "The model goes to EXPORT_DIR/NAME/VERSION, of other formats to EXPORT_DIR/NAME-FORMAT/….",
        "export",
    )
    name: str | None = option("Name of the served model; default: that of the run folder or model.")
    version: int | None = option("Default: the next free number.", least=1)
    format: str = option(
        "saved_model for TensorFlow Serving; onnx, litert and openvino need the extra of that "
        "name.",
        "saved_model",
        choices=serving.FORMATS,
    )
    quantization: str = option(
        "Of litert: float16 halves the weights, int8 quantizes weights and activations, calibrated "
        "on training images.",
        "float32",
        choices=serving.QUANTIZATIONS,
    )
    ranker: bool = option("Also export NAME-ranker, of the format saved_model.", True)
    rerank: str = option(
        "By what the ranker re-ranks, see evaluate.py.",
        "k_reciprocal",
        choices=(*reranking.IN_GRAPH, *reranking.ALIASES),
    )
    ranker_gallery: str | None = option(
        "Features, as evaluate.py --save_features writes them, that the ranker holds: requests "
        "then bring queries alone."
    )
    local: str = option(
        "A second output 'local': stripes pooled from the last feature map, or the model's own.",
        "none",
        choices=("none", "pooled", "trained"),
    )
    check_images: int = option("Images whose embeddings are compared.", 64, least=1)
    check_queries: int = option(
        "Queries whose ranking is compared, if there are any.", 100, least=1
    )
    num_check_distractors: int = option(
        "Gallery images of other identities they are ranked among.", 300, least=1
    )


def export(options: ExportOptions) -> Path:
    """Export a model, compare it with the run on images and return the folder of its version.

    Raises:
        InputError: options that do not go together, or an export that embeds differently.
    """
    numbers = options.rerank_numbers
    if options.name is not None and not re.fullmatch(r"\w[\w.-]*", options.name):
        raise InputError(
            f"a served model is named by letters, digits, _, - and .: received {options.name!r}; "
            "the folder is --export_dir"
        )
    check_writable(Path(options.export_dir) / "model")
    held = _gallery(options)
    import_keras()
    serving.checked_reranker(reranking.full_name(options.rerank), numbers)
    with tempfile.TemporaryDirectory() as drawn:
        return _export(options, _images(options, drawn), numbers, held)


def _gallery(options: ExportOptions) -> Any:
    """The embeddings that the ranker holds, if any."""
    path = options.ranker_gallery
    if path is None:
        return None
    if not options.ranker or options.format != "saved_model":
        raise InputError(
            "--ranker_gallery is held by a ranker, which goes with the format saved_model: leave "
            "it out, or --noranker and --format"
        )
    features = stored_features(path, "gallery").features
    if "embedding" not in features:
        raise InputError(f"a ranker holds embeddings: {path} has stripes alone")
    return features["embedding"]


def _images(options: ExportOptions, drawn: str) -> data.ReidDataset:
    """Those that are named, else those of the run, else pedestrians that are drawn in a folder."""
    settings = options.settings
    if not (options.dataset or options.data_dir or settings.get("dataset")):
        if options.quantization == "int8":
            raise InputError(
                "int8 is calibrated on images such as the model will see: give --dataset and "
                "--data_dir"
            )
        settings = {"dataset": "synthetic", "data_dir": drawn}
    return options.dataset_of_run(settings, "an export is checked on images")


def _export(
    options: ExportOptions, dataset: data.ReidDataset, numbers: dict[str, Any], held: Any
) -> Path:
    """Exports what was checked on the images."""
    model, settings = options.source.load_model(options.member), options.settings
    if models.takes_clips(model):
        dataset = data.tracklet_dataset(dataset)
    else:
        dataset = dataset.map(lambda images: images.without(data.TRACKLET))
    images = data.readable(next(iter(dataset.parts().values()))[: options.check_images])
    inputs = models.input_names(model)
    if "keypoints" in inputs:
        images = options.with_points(images)
    if options.local == "pooled":
        model = models.stripes(model, options.stripes)
    flip = settings["flip"]
    about = _about(options, dataset.name)
    name = options.name or about["run"]
    suffix = "" if options.format == "saved_model" else f"-{options.format}"
    directory = Path(options.export_dir) / f"{name}{suffix}"
    tolerance, loss = serving.TOLERANCES[options.quantization]
    pixels = None
    if options.quantization == "int8":
        batches = data.image_batches(images, image_size=models.image_size(model))
        pixels = np.concatenate([batch.numpy() for batch in batches])

    def check(version: Path) -> None:
        """Before a server sees it."""
        reports: list[serving.ParityReport | serving.ScoreReport] = [
            serving.parity(model, version, images, tolerance, flip)
        ]
        say(str(reports[0]))
        if len(inputs) == 1 and dataset.query is not None and dataset.gallery is not None:
            query, gallery = serving.sample(
                dataset.query, dataset.gallery, options.check_queries, options.num_check_distractors
            )
            protocol = options.protocol_of(query, settings.get("protocol"))
            reports.append(serving.scores(model, version, query, gallery, loss, flip, protocol))
            say(str(reports[1]))
        if not all(report.ok for report in reports):
            raise InputError(
                "an export embeds as the run does: this one does not, and was not kept; export "
                "with another --format or --quantization"
            )

    version = serving.export(
        model,
        directory,
        options.version,
        flip=flip,
        local=options.local != "none",
        format=options.format,
        quantization=options.quantization,
        calibration=pixels,
        about=about,
        check=check,
    )
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    say(f"exported to {version} ({size / 2**20:.1f} MiB)")
    if options.format != "saved_model":
        return version
    if options.ranker:
        width = inference.load(version).embedding_dim
        ranker = serving.export_ranker(
            directory.with_name(f"{name}-ranker"),
            width,
            None,
            reranking.full_name(options.rerank),
            held,
            **numbers,
        )
        say(f"ranking and re-ranking: {ranker}")
    say(
        f"serve it: tensorflow_model_server --model_name={name} "
        f"--model_base_path={directory.resolve()}"
    )
    say("several models, batching and clients: docs/serving.md")
    return version


def _about(options: ExportOptions, checked_on: str) -> dict[str, Any]:
    """Values for `export.json`."""
    source = options.source
    calibration = source.calibration(options.member)
    name, metrics, trained_on = source.path.stem, {}, options.settings.get("dataset")
    if source.run:
        name, metrics = source.run.directory.resolve().name, source.run.metrics
    elif card := source.pretrained:
        name, metrics, trained_on = card.name, dict(card.scores), card.trained_on
    return {
        "run": name,
        "metrics": metrics,
        "dataset": trained_on or checked_on,
        "checked_on": checked_on,
        "calibration": None if calibration is None else calibration.to_dict(),
    }


SHOWN = "model export_dir name format quantization dataset data_dir check_images ranker"
run = Command(export, ExportOptions, SHOWN)
