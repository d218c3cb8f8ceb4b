"""`python evaluate.py --run=RUN --dataset=NAME --data_dir=DIR`: scores a trained model.

`python evaluate.py --features=QUERY.npz,GALLERY.npz` scores features of any framework.
"""

import json
from typing import Any

import numpy as np
from absl import flags

from keras_reid import data, evaluation
from keras_reid.cli.shared import (
    FLAGS,
    check_one_model,
    command,
    embedder_of,
    numbers_by_name,
    progress,
    refuse_existing,
    say,
)
from keras_reid.errors import InputError
from keras_reid.evaluation import StoredFeatures
from keras_reid.evaluation.protocols import TIES
from keras_reid.files import new_file, new_folder
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
    ["global", "cosine", "local", "global_local", "visible"],
    "What is compared: embeddings by Euclidean distance or cosine, aligned stripes, or both (DMLI, "
    "the sum of the two); of a model with pose also the parts that both images show.",
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
    "Re-rank by what the neighbours of query and gallery have in common.",
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
flags.DEFINE_string(
    "attributes", None, "Table or .mat file: also score the attributes that a --run predicts."
)
flags.DEFINE_float(
    "attribute_filter",
    None,
    "Rank last what contradicts a query's attributes, where both are predicted with this "
    "probability, such as 0.9, and say what that costs.",
)
flags.DEFINE_bool("tracklets", False, "Group the images to tracklets, and rank these.")
flags.DEFINE_enum(
    "set_distance",
    "pooled",
    ["pooled", *evaluation.SET_DISTANCES],
    "Of --tracklets: by the mean of their embeddings, or frame by frame.",
)
flags.DEFINE_bool("camera_pairs", False, "Also score each pair of cameras.")
flags.DEFINE_integer("repeats", 10, "Of protocols that draw: cuhk03-classic, viper.", 1)
flags.DEFINE_integer("draw_seed", 0, "Of protocols that draw.")


OF_EMBEDDINGS = ("global", "cosine")


def main(argv: list[str]) -> None:
    """Reads the flags, embeds query and gallery, prints one table."""
    refuse_existing("out", "save_features")
    options = numbers_by_name("rerank_options")
    _check_choices()
    query, gallery, name = _stored() if FLAGS.features else _embedded()
    if FLAGS.save_features:
        with new_folder(FLAGS.save_features) as folder:
            for part, stored in (("query", query), ("gallery", gallery)):
                evaluation.save_features(folder / f"{part}.npz", *stored)
    attributes = _attributes(query, gallery)
    rows = _rows(query, gallery, attributes, options)
    protocol = evaluation.Protocol(
        _protocol(),
        ties=FLAGS.ties,
        repeats=FLAGS.repeats,
        seed=FLAGS.draw_seed,
        dataset=name,
    )
    result = evaluation.rank(
        rows,
        query,
        gallery,
        protocol,
        camera_pairs=FLAGS.camera_pairs,
        progress=progress("ranking"),
    )
    say(str(result))
    values = result.to_dict()
    if _protocol() != "viper":
        intervals = {score: result.interval(score) for score in ("rank-1", "mAP")}
        texts = (f"{s} {100 * a:.2f} to {100 * b:.2f} %" for s, (a, b) in intervals.items())
        say(f"95 % intervals over the queries: {', '.join(texts)}")
        values["intervals"] = {name: list(ends) for name, ends in intervals.items()}
    if FLAGS.attributes:
        scores = _attribute_scores(query, gallery, attributes)
        say(str(scores))
        values["attributes"] = scores.to_dict()
    if FLAGS.verify:
        judged = "no-camera" if _protocol() == "no-camera" else "market1501"
        # A threshold is of the distances themselves, whatever ranks.
        plain = _rows(query, gallery, attributes, {}, "none") if FLAGS.rerank != "none" else rows
        pairs = evaluation.pairs(plain, query, gallery, judged)
        verification = evaluation.verify(*pairs)
        say(str(verification))
        values["verification"] = verification.to_dict()
    if FLAGS.out:
        with new_file(FLAGS.out) as file:
            file.write_text(json.dumps(values, indent=2) + "\n")
        say(f"written to {FLAGS.out}")


def _embedded() -> tuple[StoredFeatures, StoredFeatures, str]:
    """Features of the query and gallery images, and the name of the data set."""
    check_one_model()
    settings = Run(FLAGS.run).flags if FLAGS.run else {}
    name = FLAGS.dataset or settings.get("dataset")
    data_dir = FLAGS.data_dir or (settings.get("data_dir") if not FLAGS.dataset else None)
    if name is None or data_dir is None:
        raise InputError("a model is scored on images: give --dataset and --data_dir")
    FLAGS["data_dir"].value = data_dir
    dataset = (data.load_tracklets if FLAGS.tracklets else data.load)(name, data_dir)
    if dataset.query is None or dataset.gallery is None:
        raise InputError(f"a score needs query and gallery images: {data_dir!r} has none")
    local = FLAGS.distance in ("local", "global_local")
    also = ("global", "parts", "visibility") if FLAGS.distance == "visible" else ()
    if FLAGS.attributes or FLAGS.attribute_filter is not None:
        also = (*also, "attribute_probabilities")
    embed = embedder_of(local, also)

    def stored(images: Any) -> StoredFeatures:
        if isinstance(images, data.Tracklets):
            images = data.readable_tracklets(images)
            if FLAGS.set_distance != "pooled":
                frames = embed(images.images)
                ends = np.flatnonzero(np.diff(images.owner)) + 1
                sets: Any = np.split(frames, ends)
                return StoredFeatures({"frames": sets}, images.identity, images.camera)
        else:
            images = data.readable(images)
        features = embed(images)
        features = features if local or also else {"embedding": features}
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


def _rows(
    query: StoredFeatures,
    gallery: StoredFeatures,
    attributes: list[np.ndarray],
    options: dict[str, float],
    reranking: str | None = None,
) -> evaluation.Rows:
    """The distances that are asked for."""
    chosen = _chosen(query.features), _chosen(gallery.features)
    reranking = reranking or FLAGS.rerank
    if FLAGS.set_distance != "pooled":
        return _of_sets(*chosen, reranking, options)
    if FLAGS.attribute_filter is not None:
        return _filtered(chosen, attributes, query, gallery)
    distance = "euclidean" if FLAGS.distance == "global" else FLAGS.distance
    done = progress("looking for neighbours")
    return evaluation.compare(*chosen, distance, reranking, done, **options)


def _chosen(features: dict[str, Any]) -> Any:
    """What is to be compared."""
    if "frames" in features:
        return features["frames"]
    if FLAGS.distance in OF_EMBEDDINGS and "embedding" in features:
        return features["embedding"]
    return features


def _protocol() -> str:
    """That of the flag, or of tracklets MARS's, in which the queries are among the gallery."""
    return "mars" if FLAGS.tracklets and not FLAGS["protocol"].present else FLAGS.protocol


def _check_choices() -> None:
    attributes = FLAGS.attributes or FLAGS.attribute_filter is not None
    frames = FLAGS.set_distance != "pooled"
    rules = {
        "attributes are predicted by a model: give --run, not --features": (
            attributes and bool(FLAGS.features)
        ),
        "tracklets are made of images: give --run or --saved_model, not --features": (
            FLAGS.tracklets and bool(FLAGS.features)
        ),
        "--set_distance compares the frames of tracklets: give --tracklets": (
            frames and not FLAGS.tracklets
        ),
        "tracklets are compared by embeddings: leave --distance, --attributes, --save_features and "
        "--attribute_filter out": (
            FLAGS.tracklets
            and bool(FLAGS.distance not in OF_EMBEDDINGS or attributes or FLAGS.save_features)
        ),
        "frames are re-ranked by k_reciprocal alone": (
            frames and FLAGS.rerank not in ("none", "k_reciprocal")
        ),
        "attributes filter what is ranked by embeddings: leave --rerank and --distance out": (
            FLAGS.attribute_filter is not None
            and (FLAGS.rerank != "none" or FLAGS.distance != "global")
        ),
    }
    for rule, broken in rules.items():
        if broken:
            raise InputError(rule)


def _of_sets(
    query: Any, gallery: Any, reranking: str, options: dict[str, float]
) -> evaluation.Rows:
    """Distances between the frames of tracklets, re-ranked if asked."""
    kind = FLAGS.set_distance
    if reranking == "none":
        return evaluation.MatrixRows(evaluation.set_distances(query, gallery, kind), kind)
    matrix = evaluation.reranked_set_distances(query, gallery, kind, **options)
    return evaluation.MatrixRows(matrix, kind, reranking)


def _attributes(query: StoredFeatures, gallery: StoredFeatures) -> list[np.ndarray]:
    """The probabilities of attributes of both sides; of no other use to a ranking."""
    name = "attribute_probabilities"
    return [side.features.pop(name) for side in (query, gallery) if name in side.features]


def _schema() -> data.AttributeSchema:
    names = Run(FLAGS.run).flags.get("attribute_names")
    if not names:
        raise InputError(f"{FLAGS.run} knows no attributes: train one with --recipe=attributes")
    return data.AttributeSchema(tuple(names))


def _attribute_scores(
    query: StoredFeatures, gallery: StoredFeatures, attributes: list[np.ndarray]
) -> evaluation.AttributeScores:
    """Of all test images."""
    schema, table = _schema(), data.read_attributes(FLAGS.attributes)
    if table.schema != schema:
        raise InputError(
            f"attributes are scored by a table of the same: {FLAGS.run} knows "
            f"{', '.join(schema.names)}; {FLAGS.attributes} has {', '.join(table.schema.names)}"
        )
    identity = np.concatenate([np.asarray(side.identity) for side in (query, gallery)])
    images = table.label(data.PersonImages(identity.astype(str), identity, None))
    probabilities = evaluation.predicted_attributes(np.concatenate(attributes), schema.exclusive)
    true = images.columns["attributes"]
    return evaluation.attribute_scores(probabilities, true, schema.names, schema.groups)


def _filtered(
    chosen: Any, attributes: list[np.ndarray], query: StoredFeatures, gallery: StoredFeatures
) -> evaluation.Rows:
    """Distances in which whoever contradicts a query's attributes comes after all others."""
    found = evaluation.prefilter(
        (attributes[0], attributes[1]), query, gallery, _protocol(), FLAGS.attribute_filter
    )
    say(str(found))
    distances = evaluation.matrix(*chosen)
    distances += np.where(found.kept, 0, distances.max() + 1)
    return evaluation.MatrixRows(distances, "euclidean, attributes agreeing")


run = command(
    main,
    "run",
    "saved_model",
    "features",
    "dataset",
    "data_dir",
    "distance",
    "rerank",
    "tracklets",
    "verify",
    "out",
)
