"""`python evaluate.py --run=RUN --dataset=NAME --data_dir=DIR`: scores a trained model.

`python evaluate.py --features=QUERY.npz,GALLERY.npz` scores features of any framework.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from keras_reid import data, evaluation
from keras_reid.cli.shared import (
    FLAGS,
    check_one_model,
    command,
    embedder_of,
    progress,
    refuse_existing,
    say,
)
from keras_reid.errors import InputError
from keras_reid.evaluation import StoredFeatures
from keras_reid.evaluation.ranking import TIES
from keras_reid.reranking import RERANKERS
from keras_reid.training.runs import Run

flags.DEFINE_string("saved_model", None, "An exported export/NAME/VERSION folder instead.")
flags.DEFINE_list(
    "features",
    None,
    "QUERY,GALLERY instead of a model: each an .npz file with embedding (n, d), identity (n,) and "
    "camera (n,), or a folder of such .npy files, which are memory-mapped.",
)
flags.DEFINE_string("save_features", None, "Write query.npz and gallery.npz to this new folder.")
flags.DEFINE_string("out", None, "Write the scores to this new JSON file, too.")
flags.DEFINE_enum(
    "distance",
    "global",
    ["global", "local", "global_local"],
    "What is compared: embeddings, aligned stripes, or both (DMLI, the sum of the two).",
)
flags.DEFINE_enum(
    "local",
    "pooled",
    ["pooled", "trained"],
    "Stripes pooled from the last feature map of any model of a --run, or its own output 'local'.",
)
flags.DEFINE_integer(
    "stripes", None, "How many are pooled; default: one for each row of the map.", lower_bound=1
)
flags.DEFINE_enum(
    "rerank",
    "none",
    ["none", *RERANKERS],
    "Re-rank by what the neighbours of query and gallery tell.",
)
flags.DEFINE_list("rerank_options", [], "Of the re-ranker, such as k1=20,k2=6,lambda_value=0.3.")
flags.DEFINE_enum(
    "ties",
    "index",
    list(TIES),
    "Equal distances: by gallery index, or the bounds of what any order gives.",
)
flags.DEFINE_bool(
    "verify", False, "Also score pairs of images, one person or two: EER, and TAR at several FARs."
)
flags.DEFINE_bool("camera_pairs", False, "Also score each pair of cameras.")
flags.DEFINE_integer("repeats", 10, "Of protocols that draw: cuhk03-classic, viper.", 1)
flags.DEFINE_integer("draw_seed", 0, "Of protocols that draw.")


def main(argv: list[str]) -> None:
    """Reads the flags, embeds query and gallery, prints one table."""
    refuse_existing("out", "save_features")
    options = _options(FLAGS.rerank_options)
    query, gallery, name = _stored() if FLAGS.features else _embedded()
    if FLAGS.save_features:
        folder = Path(FLAGS.save_features)
        folder.mkdir(parents=True)
        for part, stored in (("query", query), ("gallery", gallery)):
            evaluation.save_features(folder / f"{part}.npz", *stored)
    chosen = _chosen(query.features), _chosen(gallery.features)
    labels = (query.identity, gallery.identity, query.camera, gallery.camera)
    result = evaluation.rank(
        chosen,
        *labels,  # type: ignore[arg-type]
        distance=None if FLAGS.distance == "global" else FLAGS.distance,
        protocol=FLAGS.protocol,
        dataset=name,
        reranking=FLAGS.rerank,
        reranking_options=options,
        ties=FLAGS.ties,
        camera_pairs=FLAGS.camera_pairs,
        repeats=FLAGS.repeats,
        seed=FLAGS.draw_seed,
        progress=progress("ranking"),
    )
    say(str(result))
    if FLAGS.protocol != "viper":
        intervals = {score: result.interval(score) for score in ("rank-1", "mAP")}
        texts = (f"{s} {100 * a:.2f} to {100 * b:.2f} %" for s, (a, b) in intervals.items())
        say(f"95 % intervals over the queries: {', '.join(texts)}")
    values = result.as_dict()
    if FLAGS.verify:
        distance = None if FLAGS.distance == "global" else FLAGS.distance
        pairs = evaluation.pairs(
            chosen,
            *labels,  # type: ignore[arg-type]
            distance=distance,
            protocol="no-camera" if FLAGS.protocol == "no-camera" else "market1501",
        )
        verification = evaluation.verify(*pairs)
        say(str(verification))
        values["verification"] = verification.to_dict()
    if FLAGS.out:
        Path(FLAGS.out).write_text(json.dumps(values, indent=2) + "\n")
        say(f"written to {FLAGS.out}")


def _embedded() -> tuple[StoredFeatures, StoredFeatures, str]:
    """Features of the query and gallery images, and the name of the data set."""
    check_one_model()
    settings = Run(FLAGS.run).flags if FLAGS.run else {}
    name = FLAGS.dataset or settings.get("dataset")
    data_dir = FLAGS.data_dir or (settings.get("data_dir") if not FLAGS.dataset else None)
    if name is None or data_dir is None:
        raise InputError("a model is scored on images: give --dataset and --data_dir")
    dataset = data.load(name, data_dir)
    if dataset.query is None or dataset.gallery is None:
        raise InputError(f"a score needs query and gallery images: {data_dir!r} has none")
    local = FLAGS.distance != "global"
    embed = embedder_of(local)

    def stored(images: data.PersonImages) -> StoredFeatures:
        images = data.readable(images)
        features = embed(images)
        features = features if local else {"embedding": features}
        return StoredFeatures(features, images.identity, images.camera)

    return stored(dataset.query), stored(dataset.gallery), name


def _stored() -> tuple[StoredFeatures, StoredFeatures, str | None]:
    if FLAGS.run or FLAGS.saved_model or len(FLAGS.features) != 2:
        raise InputError(
            "--features names two files, QUERY,GALLERY, instead of a model: received "
            f"{','.join(FLAGS.features)!r}"
        )
    query, gallery = map(evaluation.load_features, FLAGS.features)
    for path, stored in zip(FLAGS.features, (query, gallery), strict=True):
        if stored.identity is None:
            raise InputError(f"a score needs to know who is who: {path} has no array identity")
    return query, gallery, FLAGS.dataset


def _chosen(features: dict[str, Any]) -> Any:
    """What `evaluation.rank` is to compare."""
    if FLAGS.distance == "global" and "embedding" in features:
        return features["embedding"]
    return features


def _options(given: list[str]) -> dict[str, float]:
    """`["k1=20", "alpha=3.0"]` as numbers by name."""
    options = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            options[name] = int(number) if number.lstrip("-").isdigit() else float(number)
        except ValueError:
            raise InputError(
                f"--rerank_options are NAME=NUMBER, separated by commas: received {text!r}"
            ) from None
    return options


run = command(main)
