"""`python evaluate.py --model=MODEL --dataset=NAME --data_dir=DIR`: scores a trained model.

The default is the pretrained model.

`python evaluate.py --features=QUERY.npz,GALLERY.npz` scores features of any framework.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_reid import checks, data, evaluation, reranking, visualize
from keras_reid.cli import report
from keras_reid.cli.common import (
    FeatureOptions,
    ModelOptions,
    check_outputs,
    progress,
    say,
    stored_features,
)
from keras_reid.cli.options import Command, option
from keras_reid.errors import InputError
from keras_reid.evaluation import StoredFeatures
from keras_reid.evaluation.protocols import TIES
from keras_reid.io import new_file, new_folder

OF_EMBEDDINGS = ("global", "cosine")
OF_TRACKLETS = (
    "tracklets are compared by embeddings: leave --distance, --attributes and --attribute_filter "
    "out"
)
PROBABILITIES = "attribute_probabilities"
Sides = tuple[StoredFeatures, StoredFeatures]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(FeatureOptions, ModelOptions):
    """What is scored, and how."""

    features: Sequence[str] | None = option(
        "QUERY,GALLERY instead of a model: each an .npz file with embedding (n, d), identity (n,) "
        "and camera (n,), or a folder of such .npy files, which are memory-mapped; or one .mat "
        "file with query_f, query_label, query_cam, gallery_f, … as in pytorch_result.mat."
    )
    save_features: str | None = option(
        "Write query.npz and gallery.npz to this new folder, or both to this new .mat file with "
        "the arrays of pytorch_result.mat."
    )
    out: str | None = option("Write the scores to this new JSON file, too.")
    report: str | None = option(
        "Write a page to this new file: scores, curves, ranked lists with their pictures, what "
        "re-ranking changed. Needs Matplotlib."
    )
    distance: str = option(
        "What is compared: embeddings by Euclidean distance or cosine, aligned stripes, or both "
        "(DMLI, the sum of the two); of a model with pose also the parts that both images show.",
        "global",
        choices=("global", "cosine", "local", "global_local", "visible"),
    )
    local: str = option(
        "Stripes pooled from the last feature map of any Keras model, or its own output 'local'.",
        "pooled",
        choices=("pooled", "trained"),
    )
    rerank: str = option(
        "Re-rank by what the neighbors of query and gallery have in common.",
        "none",
        choices=("none", *reranking.RERANKERS, *reranking.ALIASES),
    )
    ties: str = option(
        "Equal distances: by gallery index, or the bounds of what any order gives.",
        "index",
        choices=tuple(TIES),
    )
    verify: bool = option(
        "Also score pairs of images, one person or two: EER, and TAR at several FARs.", False
    )
    attributes: str | None = option(
        "Table or .mat file: also score the attributes that a run predicts."
    )
    attribute_filter: float | None = option(
        "Rank last what contradicts a query's attributes, where both are predicted with this "
        "probability, such as 0.9, and say what that costs."
    )
    tracklets: bool = option("Group the images to tracklets, and rank these.", False)
    set_distance: str = option(
        "Of tracklets: by the mean of their embeddings, or frame by frame.",
        "pooled",
        choices=("pooled", *evaluation.SET_DISTANCES),
    )
    camera_pairs: bool = option("Also score each pair of cameras.", False)
    repeats: int = option("Of protocols that draw: cuhk03-classic, viper.", 10, least=1)
    draw_seed: int = option("Of protocols that draw.", 0, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices()
        self.rerank_numbers  # noqa: B018  raises
        _protocol(self, self.protocol or "market1501", None)
        if self.attribute_filter is not None:
            hint = "the probability of a sure attribute"
            checks.within("(0.5, 1]", hint, attribute_filter=self.attribute_filter)

    @property
    def sides(self) -> Sequence[str] | None:
        """The files of query and gallery features."""
        files = self.features
        if files and len(files) == 1 and evaluation.holds_both_sides(files[0]):
            return [files[0], files[0]]
        return files

    def _check_choices(self) -> None:
        frames = self.set_distance != "pooled"
        attributes = bool(self.attributes or self.attribute_filter is not None)
        rules = {
            "--features names two files, QUERY,GALLERY, or one .mat file, instead of a model: "
            f"received {','.join(self.features or ())!r}": bool(self.features)
            and bool(self.model_name or len(self.sides or ()) != 2),
            "a .mat file has embeddings alone: leave --distance out, or name a folder for "
            "--save_features": (
                evaluation.holds_both_sides(self.save_features or "")
                and self.distance not in OF_EMBEDDINGS
            ),
            "attributes are predicted by a model: give --model, not --features": (
                attributes and bool(self.features)
            ),
            "tracklets are made of images: give --model, not --features": (
                self.tracklets and bool(self.features)
            ),
            "--set_distance compares the frames of tracklets: give --tracklets": (
                frames and not self.tracklets
            ),
            OF_TRACKLETS: (
                self.tracklets and bool(self.distance not in OF_EMBEDDINGS or attributes)
            ),
            "frames of tracklets are not saved: leave --set_distance out": (
                frames and bool(self.save_features)
            ),
            "frames are re-ranked by k_reciprocal alone": (
                frames and self.rerank not in ("none", "k_reciprocal")
            ),
            "attributes filter what is ranked by embeddings: leave --rerank and --distance out": (
                self.attribute_filter is not None
                and (self.rerank != "none" or self.distance != "global")
            ),
        }
        for rule, broken in rules.items():
            if broken:
                raise InputError(rule)


@dataclass(frozen=True, eq=False)
class EvaluateResult(evaluation.RankingResult):
    """The scores of the ranking, with the other results that are printed.

    Attributes:
        verification: scores of pairs; None without `verify` and `report`.
        attributes: scores of the attributes; None without `attributes`.
    """

    verification: evaluation.VerificationResult | None = field(default=None, repr=False)
    attributes: evaluation.AttributeScores | None = field(default=None, repr=False)


def evaluate(options: EvaluateOptions) -> EvaluateResult:
    """Embed query and gallery, rank, print one table and return its values.

    Raises:
        InputError: options that do not go together, or data without query and gallery images.
    """
    check_outputs(out=options.out, save_features=options.save_features, report=options.report)
    if options.report:
        visualize.need_matplotlib()
    begin = time.perf_counter()
    sides, protocol = _stored(options) if options.features else _embedded(options)
    embedded = time.perf_counter()
    if options.save_features:
        _save(options.save_features, sides)

    def ranked(rows: evaluation.Rows) -> evaluation.RankingResult:
        pairs = options.camera_pairs or bool(options.report)
        return evaluation.rank(
            rows, *sides, protocol, camera_pairs=pairs, progress=progress("ranking")
        )

    rows = plain = _rows(options, sides, protocol.name)
    compared = time.perf_counter()
    result = ranked(rows)
    seconds = {"ranked": time.perf_counter() - compared}
    if not options.features:
        seconds["embedded"] = embedded - begin
    say(str(result))
    values = result.to_dict()
    if protocol.name != "viper":
        intervals = {score: result.interval(score) for score in ("rank-1", "mAP")}
        texts = (f"{s} {100 * a:.2f} to {100 * b:.2f} %" for s, (a, b) in intervals.items())
        say(f"95 % intervals over the queries: {', '.join(texts)}")
        values["intervals"] = {name: list(ends) for name, ends in intervals.items()}
    scores = None
    if options.attributes:
        scores = _attribute_scores(options, sides)
        say(str(scores))
        values["attributes"] = scores.to_dict()
    verification = None
    if options.verify or options.report:
        if options.rerank != "none":  # pairs and thresholds are of distances without re-ranking
            before = dataclasses.replace(options, rerank="none", rerank_options=None)
            plain = _rows(before, sides, protocol.name)
        judged = "no-camera" if protocol.name == "no-camera" else "market1501"
        verification = evaluation.verify(*evaluation.pairs(plain, *sides, judged))
        values["verification"] = verification.to_dict()
    if options.verify:
        say(str(verification))
    if options.out:
        with new_file(options.out) as file:
            file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        say(f"written to {options.out}")
    if options.report:
        results = {"ranking": result}
        if plain is not rows:
            results = {"before": ranked(plain), "re-ranked": result}
        assert verification is not None
        report.write(options, options.report, sides, rows, results, verification, values, seconds)
        say(f"report: {options.report}")
    return EvaluateResult(**vars(result), verification=verification, attributes=scores)


def _save(place: str, sides: Sides) -> None:
    if evaluation.holds_both_sides(place):
        evaluation.save_matlab(place, *sides)
        return
    with new_folder(place) as staged:
        for part, side in zip(("query", "gallery"), sides, strict=True):
            file = staged / f"{part}.npz"
            evaluation.save_features(file, side.features, side.identity, side.camera)


def _protocol(options: EvaluateOptions, name: str, dataset: str | None) -> evaluation.Protocol:
    protocol = evaluation.Protocol(
        name,
        ties=options.ties,
        repeats=options.repeats,
        seed=options.draw_seed,
        dataset=dataset,
    )
    if options.report and protocol.rule.halves:
        raise InputError(
            f"a report shows the list of each query, and protocol {name} ranks random halves: "
            "leave the report out"
        )
    return protocol


def _embedded(options: EvaluateOptions) -> tuple[Sides, evaluation.Protocol]:
    """Features of the query and gallery images, and how they are ranked."""
    trained_on = {} if options.dataset else options.settings
    dataset = options.dataset_of_run(trained_on, "a model is scored on images")
    if options.tracklets:
        dataset = data.tracklet_dataset(dataset)
    if dataset.query is None or dataset.gallery is None:
        folder = options.data_dir or trained_on["data_dir"]
        raise InputError(f"a score needs query and gallery images: {folder!r} has none")
    stripes = options.local if options.distance in ("local", "global_local") else None
    also = ["global", "parts", "visibility"] if options.distance == "visible" else []
    if options.attributes or options.attribute_filter is not None:
        also.append(PROBABILITIES)
    if dataset.query.has_tracklets and (stripes or also):
        raise InputError(OF_TRACKLETS)
    protocol = options.protocol_of(dataset.query, trained_on.get("protocol"))
    ranking = _protocol(options, protocol, options.dataset or trained_on["dataset"])
    embed = options.embedder(stripes, options.stripes, also)

    def stored(images: data.PersonImages) -> StoredFeatures:
        images = data.readable(images, progress=progress("reading images"))
        each = images.per_tracklet()
        if options.set_distance == "pooled":
            found = embed(images)
            features = found if stripes or also else {"embedding": found}
        else:
            frames = embed(images.without(data.TRACKLET))
            features = {"frames": [frames[rows] for rows in images.tracklet_rows]}
        return StoredFeatures(features, each.identity, each.camera, each.path)

    return (stored(dataset.query), stored(dataset.gallery)), ranking


def _stored(options: EvaluateOptions) -> tuple[Sides, evaluation.Protocol]:
    """Features of files, and how they are ranked."""
    paths = options.sides or []
    query, gallery = map(stored_features, paths, ("query", "gallery"))
    for path, side in zip(paths, (query, gallery), strict=True):
        if side.identity is None:
            raise InputError(f"a score needs to know who is who: {path} has no array identity")
    name = options.protocol or "market1501"
    return (query, gallery), _protocol(options, name, options.dataset)


def _rows(options: EvaluateOptions, sides: Sides, protocol: str) -> evaluation.Rows:
    """The distances that are asked for."""
    features: list[Any] = [side.features.get("frames", side.features) for side in sides]
    query, gallery = features
    numbers = options.rerank_numbers
    if options.set_distance != "pooled":
        kind = options.set_distance
        if options.rerank == "none":
            return evaluation.matrix_rows(evaluation.set_distances(query, gallery, kind), kind)
        matrix = evaluation.reranked_set_distances(query, gallery, kind, **numbers)
        return evaluation.matrix_rows(matrix, kind, options.rerank)
    if options.attribute_filter is not None:
        # Images that contradict the attributes of a query come after all others.
        probabilities = query[PROBABILITIES], gallery[PROBABILITIES]
        kept = evaluation.prefilter(probabilities, *sides, protocol, options.attribute_filter)
        say(str(kept))
        distances = evaluation.matrix(query, gallery)
        distances += np.where(kept.kept, 0, distances.max() + 1)
        return evaluation.matrix_rows(distances, "euclidean, attributes agreeing")
    distance = "euclidean" if options.distance == "global" else options.distance
    done = progress("looking for neighbors")
    name = reranking.full_name(options.rerank)
    return evaluation.compare(query, gallery, distance, name, done, **numbers)


def _attribute_scores(options: EvaluateOptions, sides: Sides) -> evaluation.AttributeScores:
    """Of all test images."""
    names = options.settings.get("attribute_names")
    if not names:
        raise InputError(
            f"{options.source} knows no attributes: train one with --recipe=attributes"
        )
    schema = data.AttributeSchema(tuple(names))
    assert options.attributes is not None
    table = data.read_attributes(options.attributes)
    if table.schema != schema:
        raise InputError(
            f"attributes are scored by a table of the same: {options.source} knows "
            f"{', '.join(schema.names)}; {options.attributes} has {', '.join(table.schema.names)}"
        )
    identity = np.concatenate([np.asarray(side.identity) for side in sides])
    images = table.label(data.PersonImages(identity.astype(str), identity, None))
    probabilities = np.concatenate([side.features[PROBABILITIES] for side in sides])
    predicted = evaluation.predicted_attributes(probabilities, schema.exclusive)
    true = images.columns["attributes"]
    return evaluation.attribute_scores(predicted, true, schema.names, schema.groups)


SHOWN = "model features dataset data_dir distance rerank tracklets report out"
run = Command(evaluate, EvaluateOptions, SHOWN)
