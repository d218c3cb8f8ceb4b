"""Report of an evaluation: ranked lists, heat maps and durations."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_reid import data, evaluation, models, visualize
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.evaluate_options import EvaluateOptions
from keras_reid.cli.terminal import say
from keras_reid.errors import InputError, counted
from keras_reid.evaluation import RankedList, RankingResult, StoredFeatures
from keras_reid.io import new_file
from keras_reid.training.runs import Run, read_history

FAILURES, SUCCESSES = 12, 6  # number of lists
BATCH = 64  # feature maps computed at a time


def write(
    options: EvaluateOptions,
    sides: tuple[StoredFeatures, StoredFeatures],
    rows: evaluation.Rows,
    results: Mapping[str, RankingResult],
    verification: evaluation.VerificationResult,
    metrics: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Write the page of `options.report` and print its path.

    Args:
        options: flags of the evaluation.
        sides: query and gallery.
        rows: distances of the last of the results.
        results: ranking by name, without re-ranking and with it.
        verification: 1:1 trials.
        metrics: values of the JSON file.
        seconds: durations by name, "ranked" and "embedded".
    """
    last = [*results.values()][-1]
    failures, successes = (
        evaluation.ranked_lists(rows, *sides, queries, protocol=last.protocol.name)
        for queries in _chosen(last)
    )
    history = Run(options.model_source.path).history_file if options.model_source.run else None
    of_files = "features of files, without pictures"
    report = visualize.Report(
        title=f"Evaluation on {last.protocol.dataset or 'images'}",
        subtitle=of_files if sides[0].path is None else str(options.model_source),
        results=results,
        metrics=metrics,
        verification=verification,
        failures=failures,
        successes=successes,
        query=sides[0],
        gallery=sides[1],
        heat=_heat(options, sides, [*failures, *successes]),
        history=read_history(history) if history and history.exists() else (),
        speed=_speed(seconds, rows.shape[0], sum(rows.shape)),
    )
    with new_file(str(options.report), options.overwrite) as new:
        new.write_text(visualize.report_page(report), encoding="utf-8")
    say(f"report: {options.report}")


def _speed(seconds: Mapping[str, float], queries: int, images: int) -> dict[str, str]:
    """Return durations and rates as text."""
    counts = {"ranked": (queries, "query"), "embedded": (images, "image")}
    return {
        name: f"{counted(*counts[name])} in {s:.1f} s, {counts[name][0] / s:,.0f} a second"
        for name, s in seconds.items()
    }


def _chosen(result: RankingResult) -> tuple[list[int], list[int]]:
    """Return failed queries, hardest first, and successful ones of median average precision."""
    scores = result.per_query
    first = scores.first[:, 0]
    hardest = np.lexsort((scores.average_precision, -first))
    failed = [i for i in hardest if first[i] > 1][:FAILURES]
    right = np.flatnonzero(first == 1)
    right = right[np.argsort(scores.average_precision[right], kind="stable")]
    begin = max(0, (len(right) - SUCCESSES) // 2)
    middle = right[begin : begin + SUCCESSES]
    return scores.query[failed].tolist(), scores.query[middle].tolist()


def _heat(
    options: ModelOptions, sides: tuple[StoredFeatures, StoredFeatures], lists: list[RankedList]
) -> dict[tuple[int, int | None], np.ndarray]:
    """Return heat maps of similarity by (query, None) and (query, gallery image).

    The result is empty for features of files, for exports, and for models that have other inputs
    or no feature map.
    """
    if not lists or sides[0].path is None:
        return {}
    embedder = options.loaded.keras()
    if embedder is None or embedder.inputs != {"images"}:
        return {}
    try:
        maps = models.feature_maps(embedder.model)
    except InputError:
        return {}
    of_query = _maps(maps, sides[0], [one.query for one in lists])
    of_gallery = _maps(maps, sides[1], sorted({int(j) for one in lists for j in one.gallery}))
    heat: dict[tuple[int, int | None], np.ndarray] = {}
    for one in lists:
        own = of_query[one.query]
        heat[one.query, None] = visualize.activation(own)
        for j in one.gallery.tolist():
            heat[one.query, j] = visualize.activation(of_gallery[j], own)
    return heat


def _maps(model: Any, side: StoredFeatures, rows: list[int]) -> dict[int, np.ndarray]:
    """Return the feature maps (h, w, c) of some images by row."""
    assert side.path is not None
    images = data.PersonImages(side.path[rows], np.asarray(side.identity)[rows], None)
    size = models.image_size(model)
    batches = data.image_batches(images, BATCH, size)
    return dict(zip(rows, np.concatenate([np.asarray(model(x)) for x in batches]), strict=True))
