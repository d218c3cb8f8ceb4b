"""Comparison of an export with its original: embeddings, mAP and rank-1."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_reid import checks, inference
from keras_reid.data import PersonImages, readable
from keras_reid.data.images import ORIENTATION
from keras_reid.errors import counted
from keras_reid.inference.saved_model import SIGNATURES, SavedModelEmbedder
from keras_reid.names import StrPath
from keras_reid.pixels import decode, graph_resize
from keras_reid.training.scoring import rank_images

BATCH = 32


@dataclass(frozen=True)
class ParityReport:
    """Largest difference between the outputs of an export and of its original.

    Attributes:
        max_difference: largest absolute difference of one component of an L2-normalized embedding
            or local feature, over both signatures; infinite for different embedding sizes.
        images: number of compared images.
        tolerance: largest difference that is `ok`.

    Example:
        >>> print(ParityReport(max_difference=2e-6, images=64, tolerance=1e-4))
        parity ok: largest difference 2e-06 over 64 images, tolerance 0.0001
    """

    max_difference: float
    images: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """True if the difference is within the tolerance; False for NaN."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"parity {'ok' if self.ok else 'FAILED'}: largest difference {self.max_difference:.2g} "
            f"over {counted(self.images, 'image')}, tolerance {self.tolerance:.2g}"
        )


def parity(
    model: keras.Model,
    saved_model: StrPath,
    images: PersonImages | np.ndarray | Mapping[str, np.ndarray],
    tolerance: float = 1e-4,
    flip: bool = False,
) -> ParityReport:
    """Return `max |saved(image) − embed(model, image)|` over images and outputs of the export.

    The original embeds images resized as in evaluation. A SavedModel embeds each image in its own
    size, both as pixels and as a file.

    Args:
        model: original, a model of `keras_reid.models.build`.
        saved_model: folder that `export` returned.
        images: n images on disk, with keypoints or tracklets if the model takes them; or uint8
            pixels `(n, h, w, 3)`, which are encoded as PNG; or a mapping of the inputs.
        tolerance: largest difference that is `ok`.
        flip: as in `export`.

    Raises:
        InputError: `saved_model` cannot be loaded, or no image is readable.
    """
    saved = inference.load_embedder(saved_model)
    saved = saved.select(*saved.available)
    original = inference.load_embedder(model, flip=flip, outputs=saved.outputs)
    if isinstance(images, Mapping):
        count = len(next(iter(images.values())))
        return ParityReport(_difference(original([images]), saved([images])), count, tolerance)
    images = readable(images) if isinstance(images, PersonImages) else checks.pixels(images)
    shown: Any = images
    if isinstance(saved, SavedModelEmbedder) and saved.inputs == {"images"}:
        received = _served(saved, images)
        # The signatures resize in the graph.
        pixels = (image for image, _ in _originals(images))
        shown = [graph_resize(image, original.image_size).numpy() for image in pixels]
    else:
        received = [saved.embed(images, BATCH)]
    expected = original.embed(shown, BATCH)
    difference = np.max([_difference(expected, outputs) for outputs in received])
    return ParityReport(float(difference), len(images), tolerance)


def _served(saved: SavedModelEmbedder, images: PersonImages | np.ndarray) -> list[Any]:
    """Return the outputs of both signatures, called as a server calls them."""
    of_pixels, of_files = (saved.signatures[name] for name in SIGNATURES)
    parts: tuple[list[Any], list[Any]] = ([], [])
    originals = _originals(images)
    while block := list(itertools.islice(originals, BATCH)):
        parts[0].extend(of_pixels(images=pixels[None]) for pixels, _ in block)
        parts[1].append(of_files(image_bytes=tf.constant([content for _, content in block])))
    return [inference.joined(outputs, saved.outputs) for outputs in parts]


def _originals(images: PersonImages | np.ndarray) -> Iterator[tuple[tf.Tensor, bytes]]:
    """Yield the pixels (h, w, 3) of each image and the content of an image file.

    Files that `serving_bytes` does not decode, or does not turn upright, are packed as PNG.
    """
    if not isinstance(images, PersonImages):
        for image in images:
            yield tf.constant(image), tf.io.encode_png(image).numpy()
        return
    for path, turn in zip(images.path.tolist(), images.columns[ORIENTATION].tolist(), strict=True):
        pixels = decode(path)
        yield pixels, Path(path).read_bytes() if turn == 1 else tf.io.encode_png(pixels).numpy()


def _difference(a: Any, b: Any) -> float:
    """Return the largest absolute difference between arrays of the same names."""
    a, b = (x if isinstance(x, Mapping) else {"embedding": x} for x in (a, b))
    if any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    # NumPy's maximum keeps the NaN of files that cannot be decoded.
    return float(np.max([np.max(np.abs(a[name] - b[name])) for name in a]))


@dataclass(frozen=True)
class ScoreReport:
    """Scores of the original and of the export on one sample of queries and gallery images.

    Attributes:
        original, exported: mAP and rank-1 as fractions.
        queries, gallery: number of images of the sample.
        tolerance: largest loss of mAP or rank-1 that is `ok`.
    """

    original: dict[str, float]
    exported: dict[str, float]
    queries: int
    gallery: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """True if no score of the export is lower by more than the tolerance."""
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
            f"tolerance {100 * self.tolerance:g} points"
        )


def scores(
    model: keras.Model,
    exported: StrPath,
    query: PersonImages,
    gallery: PersonImages,
    tolerance: float = 1e-3,
    flip: bool = False,
    protocol: str = "market1501",
) -> ScoreReport:
    """Return mAP and rank-1 of a model and of its export on the same images; see `sample`.

    Args:
        model: as in `export`.
        exported: folder that `export` returned.
        query: images on disk.
        gallery: images on disk.
        tolerance: largest loss that is `ok`, a fraction.
        flip: as in `export`.
        protocol: as in `keras_reid.evaluation.rank`.

    Raises:
        InputError: as `inference.load` and `rank`.
    """

    def score(embedder: inference.Embedder) -> dict[str, float]:
        result = rank_images(embedder.embed, query, gallery, protocol).result
        return {"mAP": result.mAP, "rank-1": float(result.cmc[0])}

    return ScoreReport(
        score(inference.load_embedder(model, flip=flip)),
        score(inference.load_embedder(exported)),
        len(query),
        len(gallery),
        tolerance,
    )


def sample(
    query: PersonImages, gallery: PersonImages, queries: int, others: int
) -> tuple[PersonImages, PersonImages]:
    """Return evenly spaced queries, all their true matches, and images of other identities.

    Args:
        query: images on disk.
        gallery: images on disk.
        queries: maximum number of queries.
        others: maximum number of evenly spaced gallery images of other identities.

    Raises:
        InputError: a number below 1, or unreadable images.
    """
    checks.at_least(1, queries=queries, others=others)
    query = query[_even(len(query), queries)]
    mates = np.isin(gallery.identity, query.identity)
    rest = np.flatnonzero(~mates)
    chosen = np.concatenate([np.flatnonzero(mates), rest[_even(len(rest), others)]])
    return readable(query), readable(gallery[np.sort(chosen)])


def _even(count: int, selected: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, selected)).round().astype(int)
