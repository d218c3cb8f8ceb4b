"""`python export.py --model=RUN`: a model for TensorFlow Serving and others, checked on images.

The default is the pretrained model, checked on synthetic pedestrians unless a data set is given.
The export must have the embeddings, mAP and rank-1 of the model, or the exit code is 1. A
SavedModel gets a second model NAME-ranker, which ranks and re-ranks embeddings.
"""

import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import data, inference, models, reranking, serving
from keras_reid.cli.common import RunOptions
from keras_reid.cli.features import FeatureOptions, stored_features
from keras_reid.cli.options import Command, option
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import say
from keras_reid.errors import InputError, invalid
from keras_reid.io import check_writable


@dataclass(frozen=True, kw_only=True)
class ExportOptions(FeatureOptions, RunOptions):
    """Model, format and output of an export."""

    export_dir: str = option(
        "Folder for EXPORT_DIR/NAME/VERSION; other formats: EXPORT_DIR/NAME-FORMAT/VERSION.",
        "export",
    )
    name: str | None = option("Name of the served model. Default: name of the run folder or model.")
    version: int | None = option("Version number. Default: the next free number.", least=1)
    format: str = option(
        "saved_model for TensorFlow Serving; onnx, litert and openvino need the extra of the same "
        "name.",
        "saved_model",
        choices=serving.FORMATS,
    )
    quantization: str = option(
        "Only for litert: float16 weights, or int8 weights and activations, calibrated on "
        "training images.",
        "float32",
        choices=serving.QUANTIZATIONS,
    )
    ranker: bool = option("Also export NAME-ranker with a saved_model.", True)
    rerank: str = option(
        "Re-ranker of the ranker, see evaluate.py.",
        "k_reciprocal",
        choices=(*reranking.IN_GRAPH, *reranking.ALIASES),
    )
    ranker_gallery: str | None = option(
        "Gallery features of evaluate.py --save_features, stored in the ranker: requests then "
        "contain queries only."
    )
    local: str = option(
        "Second output 'local': stripes pooled from the last feature map, or trained stripes.",
        "none",
        choices=("none", "pooled", "trained"),
    )
    check_images: int = option("Number of images for the comparison of embeddings.", 64, least=1)
    check_queries: int = option("Number of queries for the comparison of scores.", 100, least=1)
    num_check_distractors: int = option(
        "Number of gallery images of other identities in that comparison.", 300, least=1
    )


def export(options: ExportOptions) -> Path:
    """Export a model, compare it with the original and return the folder of its version.

    Raises:
        InputError: conflicting options, or an export with other embeddings or lower scores.
    """
    numbers = options.rerank_numbers
    if options.name is not None and not re.fullmatch(r"\w[\w.-]*", options.name):
        fix = "Set the folder by --export_dir."
        raise invalid("name", "letters, digits, _, - and .", options.name, fix)
    check_writable(Path(options.export_dir) / "model")
    stored = _gallery(options)
    import_keras()
    serving.checked_reranker(reranking.full_name(options.rerank), numbers)
    with tempfile.TemporaryDirectory() as drawn:
        return _export(options, _images(options, drawn), numbers, stored)


def _gallery(options: ExportOptions) -> Any:
    """Return the embeddings for the ranker to store, or None."""
    path = options.ranker_gallery
    if path is None:
        return None
    if not options.ranker or options.format != "saved_model":
        raise InputError("--ranker_gallery needs --ranker and --format=saved_model.")
    features = stored_features(path, "gallery").features
    if "embedding" not in features:
        raise InputError(f"{path} has no embeddings, only stripes.", "ranker_gallery")
    return features["embedding"]


def _images(options: ExportOptions, drawn: str) -> data.ReidDataset:
    """Return the data set of the flags or the run, or synthetic pedestrians in a new folder."""
    settings = options.settings
    if not (options.dataset or options.data_dir or settings.get("dataset")):
        if options.quantization == "int8":
            raise InputError("--quantization=int8 needs --dataset and --data_dir for calibration.")
        settings = {"dataset": "synthetic", "data_dir": drawn}
    return options.dataset_of_run(settings, "an export is checked on images")


def _export(
    options: ExportOptions, dataset: data.ReidDataset, numbers: dict[str, Any], stored: Any
) -> Path:
    """Export the model, checked on the images, and its ranker."""
    model = options.source.load_model(options.member)
    if models.is_pair_verifier(model):
        raise models.no_embeddings(options.source)
    if models.takes_clips(model):
        dataset = data.tracklet_dataset(dataset)
    else:
        dataset = dataset.map(lambda images: images.without(data.TRACKLET))
    images = data.readable(next(iter(dataset.parts().values()))[: options.check_images])
    if "keypoints" in models.input_names(model):
        images = options.with_points(images)
    if options.local == "pooled":
        model = models.stripes(model, options.stripes)
    about = _about(options, dataset.name)
    name = options.name or about["run"]
    suffix = "" if options.format == "saved_model" else f"-{options.format}"
    directory = Path(options.export_dir) / f"{name}{suffix}"
    version = serving.export(
        model,
        directory,
        options.version,
        flip=options.settings["flip"],
        local=options.local != "none",
        format=options.format,
        quantization=options.quantization,
        calibration=_calibration(options, model, images),
        about=about,
        check=partial(_check, options, model, dataset, images),
    )
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    say(f"exported to {version} ({size / 2**20:.1f} MiB)")
    if options.format == "saved_model":
        if options.ranker:
            ranker = serving.export_ranker(
                directory.with_name(f"{name}-ranker"),
                inference.load_embedder(version).embedding_dim,
                reranking=reranking.full_name(options.rerank),
                gallery=stored,
                **numbers,
            )
            say(f"ranking and re-ranking: {ranker}")
        command = f"tensorflow_model_server --model_name={name}"
        say(f"serve it: {command} --model_base_path={directory.resolve()}")
        say("several models, batching and clients: docs/serving.md")
    return version


def _calibration(
    options: ExportOptions, model: Any, images: data.PersonImages
) -> np.ndarray | None:
    """Return uint8 pixels (n, h, w, 3) for int8, else None."""
    if options.quantization != "int8":
        return None
    batches = data.image_batches(images, image_size=models.image_size(model))
    return np.concatenate([batch.numpy() for batch in batches])


def _check(
    options: ExportOptions,
    model: Any,
    dataset: data.ReidDataset,
    images: data.PersonImages,
    version: Path,
) -> None:
    """Raise unless the export agrees with the model."""
    flip = options.settings["flip"]
    tolerance, loss = serving.TOLERANCES[options.quantization]
    report: serving.ParityReport | serving.ScoreReport
    report = serving.parity(model, version, images, tolerance, flip)
    say(str(report))
    agrees, single = report.ok, len(models.input_names(model)) == 1
    if single and dataset.query is not None and dataset.gallery is not None:
        query, gallery = serving.sample(
            dataset.query, dataset.gallery, options.check_queries, options.num_check_distractors
        )
        protocol = options.protocol_of(query, options.settings.get("protocol"))
        report = serving.scores(model, version, query, gallery, loss, flip, protocol)
        say(str(report))
        agrees &= report.ok
    if not agrees:
        raise InputError(
            "The export differs from the model by more than the tolerance and is not kept. "
            "Choose another --format or --quantization."
        )


def _about(options: ExportOptions, checked_on: str) -> dict[str, Any]:
    """Return the values for `export.json`."""
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
