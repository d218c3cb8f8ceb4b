"""`keras-reid evaluate --model=MODEL --dataset=NAME --data_dir=DIR`: score an embedder.

The default is the pretrained model.

`keras-reid evaluate --features=QUERY.npz,GALLERY.npz` scores features of any framework.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_reid import checks, data, evaluation, reranking
from keras_reid.cli import report
from keras_reid.cli.evaluate_options import OF_TRACKLETS, EvaluateOptions
from keras_reid.cli.features import stored_features
from keras_reid.cli.options import Command, reject
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import check_outputs, progress, say, write_json
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation import StoredFeatures
from keras_reid.io import check_replaceable, new_folder

PROBABILITIES = "attribute_probabilities"
Sides = tuple[StoredFeatures, StoredFeatures]


@dataclass(frozen=True, eq=False)
class EvaluateResult(evaluation.RankingResult):
    """Scores of the ranking, with the other printed results.

    Attributes:
        verification: scores of pairs; None if neither `verify` nor `report` is set.
        attributes: scores of the attributes; None if `attributes` is not set.
    """

    verification: evaluation.VerificationResult | None = field(default=None, repr=False)
    attributes: evaluation.AttributeScores | None = field(default=None, repr=False)


def evaluate(options: EvaluateOptions) -> EvaluateResult:
    """Embed query and gallery, rank, print a table and return its values.

    Raises:
        InputError: incompatible options, or a data set that has no query and gallery images.
    """
    outputs = {"out": options.out, "report": options.report, "save_features": options.save_features}
    check_outputs(options.overwrite, **outputs)
    if (place := options.save_features) and not evaluation.holds_both_sides(place):
        check_replaceable(place, _files(options))
    if options.report:
        checks.installed("matplotlib", "plots")
    begin = time.perf_counter()
    sides, protocol = _stored(options) if options.features else _embedded(options)
    seconds = {} if options.features else {"embedded": time.perf_counter() - begin}
    if options.save_features:
        _save(options, options.save_features, sides)
    rows = _rows(options, sides, protocol.name)
    begin = time.perf_counter()
    result = _ranked(options, rows, sides, protocol)
    seconds["ranked"] = time.perf_counter() - begin
    say(str(result))
    values = {**result.to_dict(), **_intervals(result)}
    attributes = _attribute_scores(options, sides) if options.attributes else None
    if attributes:
        say(str(attributes))
        values["attributes"] = dataclasses.asdict(attributes)
    plain, verification = _verified(options, rows, sides, protocol.name)
    if verification:
        values["verification"] = verification.to_dict()
    if options.out:
        write_json(options.out, values, options.overwrite)
    if options.report and verification:
        results = {"ranking": result}
        if plain is not rows:
            results = {"before": _ranked(options, plain, sides, protocol), "re-ranked": result}
        report.write(options, sides, rows, results, verification, values, seconds)
    return EvaluateResult(**vars(result), verification=verification, attributes=attributes)


def _ranked(
    options: EvaluateOptions, rows: evaluation.Rows, sides: Sides, protocol: evaluation.Protocol
) -> evaluation.RankingResult:
    pairs = options.camera_pairs or bool(options.report)
    return evaluation.rank(rows, *sides, protocol, camera_pairs=pairs, progress=progress("ranking"))


def _verified(
    options: EvaluateOptions, rows: evaluation.Rows, sides: Sides, protocol: str
) -> tuple[evaluation.Rows, evaluation.VerificationResult | None]:
    """Return the distances without re-ranking, and the scores of pairs if a flag needs them."""
    if not (options.verify or options.report):
        return rows, None
    if options.rerank != "none":
        before = dataclasses.replace(options, rerank="none", rerank_options=None)
        rows = _rows(before, sides, protocol)
    rule = "no-camera" if protocol == "no-camera" else "market1501"
    verification = evaluation.verify(*evaluation.pairs(rows, *sides, rule))
    if options.verify:
        say(f"\nverification (1:1)\n{verification}")
    return rows, verification


def _intervals(result: evaluation.RankingResult) -> dict[str, Any]:
    """Print confidence intervals and return them for the JSON file; empty for VIPeR."""
    if result.protocol.name == "viper":
        return {}
    intervals = {score: result.interval(score) for score in ("rank-1", "mAP")}
    texts = (f"{s} {100 * a:.2f} to {100 * b:.2f} %" for s, (a, b) in intervals.items())
    say(f"95 % intervals over the queries: {', '.join(texts)}")
    return {"intervals": {name: list(ends) for name, ends in intervals.items()}}


def _files(options: EvaluateOptions) -> tuple[str, ...]:
    """Return the names in the folder of --save_features, if it may be replaced."""
    return ("query.npz", "gallery.npz") if options.overwrite else ()


def _save(options: EvaluateOptions, place: str, sides: Sides) -> None:
    if evaluation.holds_both_sides(place):
        evaluation.save_matlab(place, *sides, options.overwrite)
        return
    with new_folder(place, _files(options)) as staged:
        for part, side in zip(("query", "gallery"), sides, strict=True):
            file = staged / f"{part}.npz"
            evaluation.save_features(file, side.features, side.identity, side.camera)


def _embedded(options: EvaluateOptions) -> tuple[Sides, evaluation.Protocol]:
    """Return the features of the query and gallery images, and the protocol."""
    settings = {} if options.dataset else options.settings
    dataset = options.dataset_of_run(settings, "An evaluation uses images")
    if options.tracklets:
        dataset = data.tracklet_dataset(dataset)
    if dataset.query is None or dataset.gallery is None:
        raise InputError(f"{dataset.name} must have query and gallery images, got none.")
    stripes = options.local if options.distance in ("local", "global_local") else None
    others = ["global", "parts", "visibility"] if options.distance == "visible" else []
    others += [PROBABILITIES] if options.uses_attributes else []
    without = options.uses_attributes and not options.settings.get("attribute_names")
    reject(
        (dataset.query.has_tracklets and (stripes or others), OF_TRACKLETS),
        (
            without,
            f"{options.model_source} predicts no attributes. Train with --recipe=attributes.",
        ),
    )
    name = options.protocol_of(dataset.query, settings.get("protocol"))
    protocol = options.protocol_named(name, options.dataset or settings["dataset"])
    import_keras()
    embed = options.embedder(stripes, options.stripes, others)

    def stored(images: data.PersonImages) -> StoredFeatures:
        images = data.readable(images, progress=progress("reading images"))
        labels = images.per_tracklet()
        if options.by_frame:
            frames = embed(images.without(data.TRACKLET))
            features: dict[str, Any] = {"frames": [frames[rows] for rows in images.tracklet_rows]}
        else:
            outputs = embed(images)
            features = outputs if stripes or others else {"embedding": outputs}
        return StoredFeatures(features, labels.identity, labels.camera, labels.path)

    return (stored(dataset.query), stored(dataset.gallery)), protocol


def _stored(options: EvaluateOptions) -> tuple[Sides, evaluation.Protocol]:
    """Return the features of files, and the protocol."""
    paths = options.sides or []
    query, gallery = map(stored_features, paths, ("query", "gallery"))
    for path, side in zip(paths, (query, gallery), strict=True):
        if side.identity is None:
            raise InputError(f"`{path}` must have an array named identity, got none.")
    return (query, gallery), options.protocol_named(options.protocol, options.dataset)


def _rows(options: EvaluateOptions, sides: Sides, protocol: str) -> evaluation.Rows:
    """Return the distances of the options."""
    features: list[Any] = [side.features.get("frames", side.features) for side in sides]
    query, gallery = features
    if options.attribute_filter is not None:
        # Images that contradict the attributes of a query come after all others.
        probabilities = query[PROBABILITIES], gallery[PROBABILITIES]
        least = options.attribute_filter
        kept, fraction, recall = evaluation.prefilter(probabilities, *sides, protocol, least)
        say(
            f"attributes with a probability of at least {least:g} keep {100 * fraction:.1f} % of "
            f"the gallery and {100 * recall:.2f} % of the true matches"
        )
        distances = evaluation.matrix(query, gallery)
        distances += np.where(kept, 0, distances.max() + 1)
        return evaluation.matrix_rows(distances, "euclidean, attributes agreeing")
    done = progress("looking for neighbors")
    name = reranking.full_name(options.rerank)
    distance = options.set_distance if options.by_frame else options.distance
    return evaluation.compare(query, gallery, distance, name, done, **options.rerank_numbers)


def _attribute_scores(options: EvaluateOptions, sides: Sides) -> evaluation.AttributeScores:
    """Return the scores of the predicted attributes of all test images."""
    schema = data.AttributeSchema(tuple(options.settings["attribute_names"]))
    table = data.read_attributes(str(options.attributes))
    if table.schema != schema:
        rule = f"a table with the attributes of {options.model_source}: {', '.join(schema.names)}"
        raise invalid("attributes", rule, Shown(", ".join(table.schema.names)))
    identity = np.concatenate([np.asarray(side.identity) for side in sides])
    images = table.label(data.PersonImages(identity.astype(str), identity, None))
    probabilities = np.concatenate([side.features[PROBABILITIES] for side in sides])
    predicted = evaluation.predicted_attributes(probabilities, schema.exclusive)
    true = images.columns["attributes"]
    return evaluation.attribute_scores(predicted, true, schema.names, schema.groups)


SHOWN = "model features dataset data_dir distance rerank tracklets report out"
run = Command(evaluate, EvaluateOptions, SHOWN)
