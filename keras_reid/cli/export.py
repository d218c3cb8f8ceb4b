"""`python export.py --model=RUN`: a model for TensorFlow Serving and others, checked on images.

The default is the pretrained model, checked on drawn pedestrians unless a
data set is named. An export is run at once: its embeddings, mAP and rank-1 must agree with those
of the model, or the exit code is 1. Beside a SavedModel goes NAME-ranker, which ranks and
re-ranks embeddings.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import data, inference, models, reranking, serving
from keras_reid.cli.options import Command, option
from keras_reid.cli.shared import (
    RunOptions,
    numbers_by_name,
    say,
    stored_features,
)
from keras_reid.cli.startup import import_keras
from keras_reid.errors import InputError
from keras_reid.io import check_writable

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class ExportOptions(RunOptions):
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
        choices=tuple(reranking.IN_GRAPH),
    )
    rerank_options: Sequence[str] | None = option(
        "Of the re-ranker, such as k1=20,k2=6,lambda_value=0.3."
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
    stripes: int | None = option("How many are pooled; default: one for each row.", least=1)
    check_images: int = option("Images whose embeddings are compared.", 64, least=1)
    check_queries: int = option(
        "Queries whose ranking is compared, if there are any.", 100, least=1
    )
    check_others: int = option(
        "Gallery images of other identities they are ranked among.", 300, least=1
    )


def export(options: ExportOptions) -> Path:
    """Export a model, compare it with the run on images and return the folder of its version.

    Raises:
        InputError: options that do not go together, or an export that embeds differently.
    """
    numbers: dict[str, Any] = numbers_by_name(options.rerank_options or (), "rerank_options")
    if options.name is not None and not re.fullmatch(r"\w[\w.-]*", options.name):
        raise InputError(
            f"a served model is named by letters, digits, _, - and .: received {options.name!r}; "
            "the folder is --export_dir"
        )
    check_writable(Path(options.export_dir) / "model")
    held = _gallery(options)
    import_keras()
    serving.checked_reranker(options.rerank, numbers)
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
    return options.dataset_of_run(settings, "an export is checked on images")[0]


def _export(
    options: ExportOptions, dataset: data.ReidDataset, numbers: dict[str, Any], held: Any
) -> Path:
    """Exports what was checked on the images."""
    model, settings = options.keras_model, options.settings
    if models.takes_clips(model):
        dataset = data.tracklet_dataset(dataset)
    else:
        dataset = dataset.map(lambda images: images.without(data.TRACKLET))
    images = data.readable(next(iter(dataset.parts().values()))[: options.check_images])
    several = _several(options, model, images, settings)
    checked = images if several is None else several
    if options.local == "pooled":
        model = models.stripes(model, options.stripes)
    flip = settings["flip"]

    calibration = options.source.calibration(options.member)
    known, metrics, trained_on = options.source.path.stem, {}, settings.get("dataset")
    if run := options.source.run:
        known, metrics = run.directory.resolve().name, run.metrics
    elif card := options.source.pretrained:
        known, metrics, trained_on = card.name, dict(card.scores), card.trained_on
    name = options.name or known
    suffix = "" if options.format == "saved_model" else f"-{options.format}"
    directory = Path(options.export_dir) / f"{name}{suffix}"
    about = {
        "run": known,
        "metrics": metrics,
        "dataset": trained_on or dataset.name,
        "checked_on": dataset.name,
        "calibration": None if calibration is None else calibration.to_dict(),
    }
    tolerance, loss = serving.TOLERANCES[options.quantization]

    def check(version: Path) -> None:
        """Before a server sees it."""
        reports: list[serving.ParityReport | serving.ScoreReport] = [
            serving.parity(model, version, checked, tolerance, flip)
        ]
        say(str(reports[0]))
        if several is None and dataset.query is not None and dataset.gallery is not None:
            query, gallery = serving.sample(
                dataset.query, dataset.gallery, options.check_queries, options.check_others
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
        calibration=_pixels(images, model) if options.quantization == "int8" else None,
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
            directory.with_name(f"{name}-ranker"), width, None, options.rerank, held, **numbers
        )
        say(f"ranking and re-ranking: {ranker}")
    say(
        f"serve it: tensorflow_model_server --model_name={name} "
        f"--model_base_path={directory.resolve()}"
    )
    say("several models, batching and clients: docs/serving.md")
    return version


def _several(
    options: ExportOptions,
    model: "keras.Model",
    images: data.PersonImages,
    settings: dict[str, Any],
) -> dict[str, np.ndarray] | None:
    """A batch for a model of several inputs; None for one of images alone."""
    size = models.image_size(model)
    if models.takes_clips(model):
        clips = min(16, len(images.per_tracklet()))
        batches = data.clip_batches(images, settings.get("frames", 4), clips, size)
    elif "keypoints" in models.input_names(model):
        source = options.keypoints or settings.get("keypoints")
        images = options.with_keypoints(
            images, source, options.data_dir or settings.get("data_dir")
        )
        batches = data.image_batches(images, len(images), size)
    else:
        return None
    return {name: value.numpy() for name, value in next(iter(batches)).items()}


def _pixels(images: data.PersonImages, model: "keras.Model") -> np.ndarray:
    size = models.image_size(model)
    return np.concatenate([np.asarray(b) for b in data.image_batches(images, 32, size)])


run = Command(
    export,
    ExportOptions,
    "model",
    "export_dir",
    "name",
    "format",
    "quantization",
    "dataset",
    "data_dir",
    "check_images",
    "ranker",
)
