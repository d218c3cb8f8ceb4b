"""Draw the pictures of the README and of docs/mathematics.md.

    python tools/figures.py

writes them to docs/images. The package computes each picture from synthetic numbers or pedestrians.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from keras_reid import data, distances, evaluation, inference, losses, mining, visualize
from keras_reid.data import synthetic
from keras_reid.reranking import k_reciprocal

IMAGES = Path(__file__).parent.parent / "docs/images"
GREEN, RED, GRAY = "#1a9641", "#d7191c", "#999999"


def costs() -> Figure:
    """Draw the loss of a triplet over d⁺ − d⁻, and of a pair over its distance."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    gap = np.linspace(-1.5, 1.5, 61).astype("float32")
    for loss, name in (
        (losses.TripletHardLoss(0.3, distance="precomputed"), "margin 0.3"),
        (losses.TripletHardLoss("soft", distance="precomputed"), "soft margin"),
    ):
        left.plot(gap, [_triplet(loss, d) for d in gap], label=name)
    left.set(xlabel="d⁺ − d⁻", ylabel="loss", title="a triplet")
    distance = np.linspace(0, 2, 61).astype("float32")
    contrastive = losses.ContrastiveLoss(1.0, normalize=False, distance="precomputed")
    for same, name in ((True, "one person"), (False, "two persons")):
        right.plot(distance, [_pair(contrastive, d, same) for d in distance], label=name)
    right.set(xlabel="distance", title="a pair, contrastive, margin 1")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def _triplet(loss: losses.MetricLoss, gap: float) -> float:
    """Return the loss of an anchor with one positive at 2 + gap and one negative at 2."""
    matrix = np.array([[0, 2 + gap, 2], [2 + gap, 0, 9], [2, 9, 0]], "float32")
    # The third image has no positive, and a loss is the mean over anchors with a positive.
    return float(np.asarray(loss.call(np.array([0, 0, 1]), matrix))[0]) * 2 / 3


def _pair(loss: losses.MetricLoss, distance: float, same: bool) -> float:
    matrix = np.array([[0, distance], [distance, 0]], "float32")
    return float(np.mean(loss.call(np.array([0, 0 if same else 1]), matrix)))


def mined() -> Figure:
    """Draw distances within a batch, and those that batch-hard mining selects."""
    random = np.random.default_rng(3)
    identity = np.repeat(np.arange(4), 4)
    centers = random.normal(size=(4, 6))
    x = (centers[identity] + 0.9 * random.normal(size=(16, 6))).astype("float32")
    matrix = np.asarray(distances.euclidean(x, x))
    same = identity[:, None] == identity
    positive, negative = same & ~np.eye(16, dtype=bool), ~same
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap="Greys_r")
    for rows, color, name in (
        (mining.farthest(matrix, positive), GREEN, "farthest positive"),
        (mining.nearest(matrix, negative), RED, "nearest negative"),
    ):
        where = np.arange(16), np.asarray(rows)
        axes.scatter(where[1], where[0], s=30, color=color, label=name)
    for edge in (3.5, 7.5, 11.5):
        axes.axhline(edge, color="white", linewidth=1)
        axes.axvline(edge, color="white", linewidth=1)
    axes.set(xlabel="image", ylabel="anchor", title="P = 4 persons, K = 4 images of each")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    figure.colorbar(shown, label="distance")
    return figure


def reranked() -> Figure:
    """Draw a query between its person and a nearer impostor, before and after re-ranking."""
    random = np.random.default_rng(5)
    angle = np.linspace(0.25, 2.4, 14)
    person = np.stack([3 * np.cos(angle), 3 * np.sin(angle)], 1)
    person += 0.08 * random.normal(size=person.shape)
    stranger = np.array([2.1, -0.3]) + 0.25 * random.normal(size=(10, 2))
    query = np.array([[3.0, 0.25]])
    gallery = np.concatenate([person, stranger])
    before = np.linalg.norm(gallery - query, axis=1)
    after = np.asarray(k_reciprocal(query, gallery, k1=5, k2=2, lambda_value=0.1))[0]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, values, title in zip(
        both, (before, after), ("by distance", "re-ranked"), strict=True
    ):
        first = np.argsort(values, kind="stable")[:8]
        axes.scatter(*person.T, color=GREEN, label="the query's person")
        axes.scatter(*stranger.T, color=RED, label="somebody else")
        axes.scatter(*gallery[first].T, s=140, facecolors="none", edgecolors="black")
        axes.scatter(*query.T, marker="*", s=180, color="black", label="query")
        right = int((first < len(person)).sum())
        axes.set(title=f"{title}: {right} of the first 8", aspect="equal")
        axes.set_xticks([])
        axes.set_yticks([])
    both[0].legend(loc="lower left")
    return figure


def search() -> Image.Image:
    """Draw three queries with their nearest images among synthetic pedestrians."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "drawn"
        synthetic.generate(root, 2, 12, cameras=4, images_per_camera=2, size=(256, 128))
        dataset = data.load("market1501", str(root))
        embedder = inference.load()
        query, gallery = dataset.query, dataset.gallery
        features = tuple(embedder.embed(images.path.tolist()) for images in (query, gallery))
        rows = [1, 17, 29]
        lists = evaluation.ranked_lists(features, query, gallery, rows, 9)
        return visualize.draw_ranked_lists(lists, query.path, gallery.path, 128)


def main() -> None:
    search().quantize(128).save(IMAGES / "search.png", optimize=True)
    for make in (costs, mined, reranked):
        make().savefig(IMAGES / f"{make.__name__}.png", dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
