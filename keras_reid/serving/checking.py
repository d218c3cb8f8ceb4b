"""Whether an export does what its original does: the same embeddings, the same ranking."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_reid import checks, models
from keras_reid.data import PersonImages, image_batches, readable
from keras_reid.data.images import ORIENTATION
from keras_reid.errors import counted
from keras_reid.pixels import decode, graph_resize
from keras_reid.serving.embedders import ExportedEmbedder, load
from keras_reid.training.callbacks import rank_images


@dataclass(frozen=True)
class ParityReport:
    """How far an exported model is from its original.

    Attributes:
        max_difference: largest absolute difference of one component of an embedding, or local
            feature, of length 1, over both signatures; infinite when the widths differ.
        images: how many were compared.
        tolerance: the largest difference that is `ok`.
    """

    max_difference: float
    images: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether they agree; a difference that is no number is no agreement."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"parity {'ok' if self.ok else 'FAILED'}: largest difference {self.max_difference:.2g} "
            f"over {counted(self.images, 'image')}, at most {self.tolerance:.2g} is allowed"
        )


def parity(
    model: keras.Model,
    saved_model: str | os.PathLike[str],
    images: PersonImages | np.ndarray | Mapping[str, np.ndarray],
    tolerance: float = 1e-4,
    flip: bool = False,
) -> ParityReport:
    """`max |saved(image) − embed(model, image)|` over images both as pixels and as files.

    All outputs of the export are compared. The model sees what evaluation shows it. The
    export sees each image in its own size, as pixels and as a file.

    Args:
        model: the original, a model of `keras_reid.models.build`.
        saved_model: the folder that `export` returned.
        images: n images on disk, or uint8 pixels `(n, h, w, 3)`, which are packed as PNG; for a
            model of several inputs the mapping of them.
        tolerance: the largest difference that is `ok`.
        flip: as in `export`.

    Raises:
        InputError: `saved_model` cannot be loaded, or there are no readable images.
    """
    saved = load(saved_model)
    size = models.image_size(model)
    local = saved.has_local
    if isinstance(images, Mapping):
        count = len(next(iter(images.values())))
        whole = models.Embedder(model, flip, local)([images])
        return ParityReport(_difference(whole, saved.outputs(images)), count, tolerance)
    if isinstance(images, PersonImages):
        images = readable(images)
        batches = image_batches(images, 32, size)
        received = (
            saved.embed((decode(path)[None] for path in images.path.tolist()), local),
            models.joined(list(_of_bytes(saved, images, 32)), local),
        )
    else:
        images = checks.pixels(images)
        batches = [np.stack([graph_resize(image, size) for image in images])] if len(images) else []
        received = (
            saved.embed((image[None] for image in images), local),
            saved.outputs_from_bytes([tf.io.encode_png(image).numpy() for image in images]),
        )
    expected = models.Embedder(model, flip, local)(batches)
    difference = np.max([_difference(expected, outputs) for outputs in received])
    return ParityReport(float(difference), len(images), tolerance)


def _of_bytes(
    saved: ExportedEmbedder, images: PersonImages, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The outputs for the bytes of image files.

    Files that `serving_bytes` does not decode, or does not turn upright, are packed as PNG.
    """
    files = list(zip(images.path.tolist(), images.columns[ORIENTATION].tolist(), strict=True))
    for start in range(0, len(files), batch_size):
        yield saved.outputs_from_bytes(
            [
                Path(path).read_bytes() if turn == 1 else tf.io.encode_png(decode(path)).numpy()
                for path, turn in files[start : start + batch_size]
            ]
        )


def _difference(a: Any, b: Any) -> float:
    """The largest between arrays of the same names."""
    a, b = (x if isinstance(x, Mapping) else {"embedding": x} for x in (a, b))
    if any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    # NumPy's maximum keeps NaN, of files that do not decode.
    return float(np.max([np.max(np.abs(a[name] - b[name])) for name in a]))


@dataclass(frozen=True)
class ScoreReport:
    """What the original and the export score on one sample of queries and gallery images.

    Attributes:
        original, exported: mAP and rank-1 as fractions.
        queries, gallery: sizes of the sample.
        tolerance: the largest loss of either that is `ok`.
    """

    original: dict[str, float]
    exported: dict[str, float]
    queries: int
    gallery: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the export loses no more than the tolerance."""
        return all(
            self.original[name] - self.exported[name] <= self.tolerance for name in self.original
        )

    def __str__(self) -> str:
        changes = ", ".join(
            f"{name} {100 * self.original[name]:.2f} → {100 * self.exported[name]:.2f} %"
            for name in self.original
        )
        return (
            f"scores {'ok' if self.ok else 'FAILED'}: {changes} on "
            f"{counted(self.queries, 'query')} and {counted(self.gallery, 'gallery image')}, "
            f"a loss of {100 * self.tolerance:g} points is allowed"
        )


def scores(
    model: keras.Model,
    exported: str | os.PathLike[str],
    query: PersonImages,
    gallery: PersonImages,
    tolerance: float = 1e-3,
    flip: bool = False,
    protocol: str = "market1501",
) -> ScoreReport:
    """mAP and rank-1 of a model and of its export on the same images; see `sample`.

    Args:
        model, flip: as in `export`.
        exported: the folder that `export` returned.
        query, gallery: images on disk.
        tolerance: the largest loss, a fraction, that is `ok`.
        protocol: as in `keras_reid.evaluation.rank`.

    Raises:
        InputError: as `load` and `rank`.
    """
    saved = load(exported)
    embedder = models.Embedder(model, flip)

    def scored(embed: Callable[[PersonImages], Any]) -> dict[str, float]:
        result = rank_images(embed, query, gallery, protocol).result
        return {"mAP": result.mAP, "rank-1": float(result.cmc[0])}

    return ScoreReport(
        scored(lambda images: embedder.embed(images, 32)),
        scored(lambda images: saved.embed_files(images.path.tolist(), 32)),
        len(query),
        len(gallery),
        tolerance,
    )


def sample(
    query: PersonImages, gallery: PersonImages, queries: int, others: int
) -> tuple[PersonImages, PersonImages]:
    """Some queries, evenly taken, all gallery images of their identities, and `others` besides."""
    checks.at_least(1, queries=queries, others=others)
    query = query[_even(len(query), queries)]
    mates = np.isin(gallery.identity, query.identity)
    rest = np.flatnonzero(~mates)
    chosen = np.concatenate([np.flatnonzero(mates), rest[_even(len(rest), others)]])
    return readable(query), readable(gallery[np.sort(chosen)])


def _even(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))
