"""Curves of a report as SVG, by Matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.evaluation import RankingResult, VerificationResult

POINTS = 400  # points of a curve
# Ends of names in a history that are not losses.
NO_LOSSES = ("epoch", "seconds", "_active", "_positive", "_negative", "_norm", "_mAP", "_rank1")
SCORES = ("val_rank1", "val_mAP")  # logged by `RetrievalEvaluation`


def _figure() -> tuple[Any, Any]:
    checks.installed("matplotlib", "plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    text = io.StringIO()
    # Text can be selected and copied, and equal numbers give equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]


def cmc(results: Mapping[str, RankingResult]) -> str:
    """Draw the share of queries with a true match among the k nearest."""
    figure, axes = _figure()
    for name, result in results.items():
        axes.plot(range(1, len(result.cmc) + 1), 100 * result.cmc, label=name)
    axes.set(xlabel="rank", ylabel="queries with a match, %", xscale="log")
    axes.legend()
    return _svg(figure)


def roc(verification: VerificationResult) -> str:
    """Draw TAR over FAR, down to one impostor pair."""
    figure, axes = _figure()
    genuine, impostor = verification.genuine, verification.impostor
    far = np.geomspace(1 / len(impostor), 1, POINTS)
    passing = np.maximum(np.floor(far * len(impostor)).astype(int), 1)
    tar = np.searchsorted(genuine, impostor[passing - 1], side="right") / len(genuine)
    axes.plot(far, 100 * tar)
    axes.set(xlabel="FAR", ylabel="TAR, %", xscale="log")
    return _svg(figure)


def distances(verification: VerificationResult, threshold: float | None) -> str:
    """Draw histograms of the distances of pairs of one person and of different persons."""
    figure, axes = _figure()
    edges = np.histogram_bin_edges(
        np.concatenate([verification.genuine[[0, -1]], verification.impostor[[0, -1]]]), 60
    )
    for name, values in (("one person", verification.genuine), ("two", verification.impostor)):
        shares = np.histogram(values, edges)[0] / len(values)
        axes.stairs(100 * shares, edges, fill=True, alpha=0.5, label=name)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label=f"{threshold:.3f}")
    axes.set(xlabel="distance", ylabel="pairs, %")
    axes.legend()
    return _svg(figure)


def changes(before: RankingResult, after: RankingResult) -> str:
    """Draw the density of the queries over AP before and after re-ranking."""
    figure, axes = _figure()
    old, new = (100 * result.per_query.average_precision for result in (before, after))
    count, x, y = np.histogram2d(old, new, 25, [[0, 100], [0, 100]])
    shown = np.ma.masked_equal(np.log1p(count.T), 0)
    axes.pcolormesh(x, y, shown, cmap="Blues", vmin=0)
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.8)
    axes.set(xlabel="AP before, %", ylabel="AP after, %")
    return _svg(figure)


def training(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Draw the losses of each epoch, and the scores if the model was scored."""
    charts = {}
    epochs = [row["epoch"] for row in history]
    losses = [name for name in (history[0] if history else ()) if not name.endswith(NO_LOSSES)]
    scores = [name for name in SCORES if any(name in row for row in history)]
    for title, names, scale in (("losses", losses, 1), ("scores while training", scores, 100)):
        if not names:
            continue
        figure, axes = _figure()
        for name in names:
            values = [scale * row.get(name, np.nan) for row in history]
            axes.plot(epochs, values, marker=".", label=name)
        axes.set(xlabel="epoch", ylabel=title if scale == 1 else "%")
        axes.legend()
        charts[title] = _svg(figure)
    return charts
