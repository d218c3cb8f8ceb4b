"""`keras-reid export --model=RUN`: a model for TensorFlow Serving and others, checked on images.

The default is the pretrained model, checked on synthetic pedestrians unless a data set is given.
The command compares embeddings, mAP and rank-1 of the export with those of the model. If they
differ by more than the tolerance, the exit code is 1. A SavedModel gets a second model NAME-ranker,
which ranks and re-ranks embeddings.
"""

import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np

from keras_reid import data, inference, models, reranking, serving
from keras_reid.cli.common import RunOptions
from keras_reid.cli.features import FeatureOptions, stored_embeddings
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import say
from keras_reid.errors import InputError, invalid
from keras_reid.io import check_writable


@dataclass(frozen=True, kw_only=True)
class ExportOptions(FeatureOptions, RunOptions):
    """Options of `export`: the model, the format, and the folder to write."""

    export_dir: str = option(
        "Folder of exports. A saved_model is written to EXPORT_DIR/NAME/VERSION, other formats to "
        "EXPORT_DIR/NAME-FORMAT/VERSION.",
        "export",
        topic="output",
    )
    name: str | None = option("Name of the served model. Default: name of the run folder or model.")
    version: int | None = option(
        "Version number: a new one, or with --overwrite an existing one. Default: the next free "
        "number.",
        least=1,
    )
    format: str = option(
        "Format: saved_model for TensorFlow Serving; onnx, litert and openvino need the extra of "
        "that name.",
        "saved_model",
        choices=serving.FORMATS,
    )
    quantization: str = option(
        "Number types of a litert export: float32, float16 weights, or int8 weights and "
        "activations, calibrated on training images.",
        "float32",
        choices=serving.QUANTIZATIONS,
    )
    ranker: bool = option(
        "Second export, NAME-ranker, next to a saved_model; it ranks and re-ranks embeddings.", True
    )
    rerank: str = option(
        "Re-ranker of NAME-ranker.",
        "k_reciprocal",
        choices=(*reranking.IN_GRAPH, *reranking.ALIASES),
    )
    ranker_gallery: str | None = option(
        "Gallery features of keras-reid evaluate --save_features. The ranker stores them, so that "
        "requests contain only queries."
    )
    local: str = option(
        "Second output 'local': none, pooled (stripes of the last feature map), or trained "
        "(stripes that the model was trained with).",
        "none",
        choices=("none", "pooled", "trained"),
    )
    check_images: int = option(
        "Number of images for the comparison of embeddings with the model.", 64, least=1
    )
    check_queries: int = option(
        "Number of queries for the comparison of scores with the model.", 100, least=1
    )
    num_check_distractors: int = option(
        "Number of gallery images of other identities for the comparison of scores.", 300, least=1
    )


def export(options: ExportOptions) -> Path:
    """Export a model, compare it with the original and return the folder of its version.

    Raises:
        InputError: conflicting options, or an export with other embeddings or lower scores.
    """
    served = options.ranker and options.format == "saved_model"
    needs_ranker = "--ranker_gallery needs --ranker and --format=saved_model."
    reject((options.ranker_gallery and not served, needs_ranker))
    if options.name is not None and not re.fullmatch(r"\w[\w.-]*", options.name):
        fix = "Set the folder with --export_dir."
        rule = "letters, digits, _, - and ., not - or . at the start"
        raise invalid("name", rule, options.name, fix)
    check_writable(Path(options.export_dir) / "model")
    gallery = None
    if path := options.ranker_gallery:
        gallery, _ = stored_embeddings(path, "ranker_gallery", "gallery")
    import_keras()
    ranking = {"reranking": reranking.full_name(options.rerank), **options.rerank_numbers}
    serving.checked_reranker(ranking["reranking"], options.rerank_numbers)
    with tempfile.TemporaryDirectory() as drawn:
        version, of_images = _export(options, _dataset(options, drawn))
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    say(f"exported to {version} ({size / 2**20:.1f} MiB)")
    if served:
        say(f"ranking and re-ranking: {_export_ranker(version, gallery, ranking)}")
    if options.format == "saved_model":
        folder = version.parent.resolve()
        command = f"tensorflow_model_server --rest_api_port=8501 --model_name={folder.name}"
        say(f"serve it: {command} --model_base_path={folder}")
        say("several models, batching and clients: docs/serving.md")
    else:
        say(f"next: keras-reid search verify FIRST.jpg SECOND.jpg --model={version}")
    if of_images:
        _say_snippets(version)
    return version


def _say_snippets(version: Path) -> None:
    """Print the programs that embed an image."""
    for name, code in serving.snippets(version).items():
        say(f"\nembed an image without keras_reid ({name}):\n\n{indent(code, '    ').rstrip()}")


def _dataset(options: ExportOptions, drawn: str) -> data.ReidDataset:
    """Return the data set of the flags or the run, or synthetic pedestrians in a new folder."""
    settings = options.settings
    if not (options.dataset or options.data_dir or settings.get("dataset")):
        required = "--quantization=int8 needs --dataset and --data_dir for calibration."
        reject((options.quantization == "int8", required))
        settings = {"dataset": "synthetic", "data_dir": drawn}
    return options.dataset_of_run(settings, "an export is checked on images")


def _export_ranker(version: Path, gallery: np.ndarray | None, ranking: dict[str, Any]) -> Path:
    """Export a ranker of the embeddings of an export, and return the folder of its version."""
    folder = version.parent.with_name(f"{version.parent.name}-ranker")
    dim = inference.load_embedder(version).embedding_dim
    return serving.export_ranker(folder, dim, gallery=gallery, **ranking)


def _export(options: ExportOptions, dataset: data.ReidDataset) -> tuple[Path, bool]:
    """Export the model, checked on the images.

    Returns:
        The folder of its version, and True if single images are its only input.
    """
    model = options.model_source.load_model(options.member)
    if models.is_pair_verifier(model):
        raise models.no_embeddings(options.model_source)
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
    suffix = "" if options.format == "saved_model" else f"-{options.format}"
    version = serving.export(
        model,
        Path(options.export_dir) / f"{options.name or about['run']}{suffix}",
        options.version,
        flip=options.settings["flip"],
        local=options.local != "none",
        format=options.format,
        quantization=options.quantization,
        calibration=_calibration(options, model, images),
        about=about,
        overwrite=options.overwrite,
        check=partial(_check, options, model, dataset, images),
    )
    return version, models.input_names(model) == {"images"}


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
    source = options.model_source
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
