"""`python export.py --run=RUN`: a model for TensorFlow Serving and others, checked on real images.

An export is run at once: its embeddings, mAP and rank-1 must agree with those of the run, or the
exit code is 1. Beside a SavedModel goes NAME-ranker, which ranks and re-ranks embeddings.
"""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

from keras_reid import data, models, serving
from keras_reid.cli.shared import (
    FLAGS,
    command,
    needs_keypoints,
    numbers_by_name,
    say,
    with_keypoints,
)
from keras_reid.errors import InputError
from keras_reid.reranking import IN_GRAPH
from keras_reid.training.runs import Run

flags.DEFINE_string(
    "export_dir",
    "export",
    "The model goes to EXPORT_DIR/NAME/VERSION, of other formats to EXPORT_DIR/NAME-FORMAT/….",
)
flags.DEFINE_string("name", None, "Name of the served model; default: that of the run folder.")
flags.DEFINE_integer("version", None, "Default: the next free number.", lower_bound=1)
flags.DEFINE_enum(
    "format",
    "saved_model",
    list(serving.FORMATS),
    "saved_model for TensorFlow Serving; onnx, litert and openvino need the extra of that name.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    list(serving.PRECISIONS),
    "Of litert: float16 halves the weights, int8 quantizes weights and activations, calibrated on "
    "training images.",
)
flags.DEFINE_bool("ranker", True, "Also export NAME-ranker, of the format saved_model.")
flags.DEFINE_enum(
    "rerank", "k_reciprocal", list(IN_GRAPH), "By what the ranker re-ranks, see evaluate.py."
)
flags.DEFINE_list("rerank_options", [], "Of the re-ranker, such as k1=20,k2=6,lambda_value=0.3.")
flags.DEFINE_enum(
    "local",
    "none",
    ["none", "pooled", "trained"],
    "A second output 'local': stripes pooled from the last feature map, or the model's own.",
)
flags.DEFINE_integer(
    "stripes", None, "How many are pooled; default: one for each row of the map.", lower_bound=1
)
flags.DEFINE_integer("check_images", 64, "Images whose embeddings are compared.", lower_bound=1)
flags.DEFINE_integer(
    "check_queries", 100, "Queries whose ranking is compared, if there are any.", lower_bound=1
)
flags.DEFINE_integer(
    "check_others", 300, "Gallery images of other identities they are ranked among.", lower_bound=1
)


def main(argv: list[str]) -> None:
    """Reads the flags, exports, and compares the export with the model on images."""
    if FLAGS.run is None:
        raise InputError("an export is made from a run folder of train.py: give --run")
    options = numbers_by_name("rerank_options")
    serving.checked_reranker(FLAGS.rerank, options)
    run = Run(FLAGS.run)
    settings = run.flags
    model = run.load_model(FLAGS.member)
    FLAGS["data_dir"].value = FLAGS.data_dir or settings["data_dir"]
    load: Any = data.load_tracklets if models.takes_clips(model) else data.load
    dataset = load(FLAGS.dataset or settings["dataset"], FLAGS.data_dir)
    parts = (dataset.train, dataset.query, dataset.gallery)
    images = next(part for part in parts if part is not None)[: FLAGS.check_images]
    several = _several(model, images, settings)
    if several is None:
        images = data.readable(images)
    checked = images if several is None else several
    if FLAGS.local == "pooled":
        model = models.stripes(model, FLAGS.stripes)
    flip = settings["flip"]

    name = FLAGS.name or run.directory.resolve().name
    suffix = "" if FLAGS.format == "saved_model" else f"-{FLAGS.format}"
    directory = Path(FLAGS.export_dir) / f"{name}{suffix}"
    about = {"run": run.directory.resolve().name, "metrics": run.metrics}
    version = serving.export(
        model,
        directory,
        FLAGS.version,
        flip=flip,
        local=FLAGS.local != "none",
        format=FLAGS.format,
        precision=FLAGS.precision,
        calibration=_pixels(images, model) if FLAGS.precision == "int8" else None,
        about={**about, "dataset": FLAGS.dataset or settings["dataset"]},
    )
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    say(f"exported to {version} ({size / 2**20:.1f} MiB)")
    tolerance, loss = serving.TOLERANCES[FLAGS.precision]
    reports: list[serving.ParityReport | serving.ScoreReport] = [
        serving.parity(model, version, checked, tolerance, flip)
    ]
    say(str(reports[0]))
    if several is None and dataset.query is not None and dataset.gallery is not None:
        query, gallery = serving.sample(
            dataset.query, dataset.gallery, FLAGS.check_queries, FLAGS.check_others
        )
        reports.append(serving.scores(model, version, query, gallery, loss, flip, FLAGS.protocol))
        say(str(reports[1]))
    if not all(report.ok for report in reports):
        sys.exit(1)
    if FLAGS.format != "saved_model":
        return
    if FLAGS.ranker:
        width = serving.load(version).embedding_width
        ranker = serving.export_ranker(
            directory.with_name(f"{name}-ranker"), width, None, FLAGS.rerank, **options
        )
        say(f"ranking and re-ranking: {ranker}")
    say(
        f"serve it: tensorflow_model_server --model_name={name} "
        f"--model_base_path={directory.resolve()}"
    )
    say("several models, batching and clients: docs/serving.md")


def _several(
    model: keras.Model, images: Any, settings: dict[str, Any]
) -> dict[str, np.ndarray] | None:
    """A batch for a model of several inputs; None for one of images alone."""
    size = models.image_size(model)
    if models.takes_clips(model):
        clips = data.readable_tracklets(images)
        batches = data.clip_batches(clips, settings["frames"], min(16, len(clips)), size)
    elif needs_keypoints(model):
        source = FLAGS.keypoints or settings["keypoints"]
        images = with_keypoints(data.readable(images), source)
        batches = data.image_batches(images, len(images), size)
    else:
        return None
    return {name: value.numpy() for name, value in next(iter(batches)).items()}


def _pixels(images: data.PersonImages, model: keras.Model) -> np.ndarray:
    size = models.image_size(model)
    return np.concatenate([np.asarray(b) for b in data.image_batches(images, 32, size)])


run = command(
    main,
    "run",
    "export_dir",
    "name",
    "format",
    "precision",
    "dataset",
    "data_dir",
    "check_images",
    "ranker",
)
