"""Embedders of all runtimes: images or tracklets in, embeddings of length 1 out."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import Shown, invalid
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.inference.sources import Source
from keras_reid.models.shipped import ModelCard
from keras_reid.skeletons import KEYPOINTS

if TYPE_CHECKING:
    from keras_reid.inference.keras_model import KerasEmbedder

Progress = Callable[[int, int], None]
ONLY_EMBEDDING = ("embedding",)


class Embedder(ABC):
    """L2-normalized float32 embeddings `(n, d)` of person images; see `load`.

    A subclass runs the batches. This class decodes, resizes and groups images.

    Attributes:
        source: the model: its path, its training settings, its card if it is pretrained.
        image_size: (h, w); images are resized to it.
        embedding_dim: d, the number of components of an embedding.
        available: names of all outputs of the model, which `select` accepts.
        inputs: names of the inputs, such as `{"images"}`, or `{"images", "keypoints"}`.
        calibration: calibration of match probabilities; None if the model has none.
        outputs: names of the returned outputs. A single `"embedding"` is returned as an array,
            others as a dict.
        flip: whether the embedding of the mirrored image is added.
        member: member of a converted run; see `load`.
    """

    source: Source
    image_size: tuple[int, int]
    embedding_dim: int
    available: tuple[str, ...] = ONLY_EMBEDDING
    inputs: frozenset[str] = frozenset({"images"})
    calibration: MatchCalibration | None = None
    outputs: tuple[str, ...] = ONLY_EMBEDDING
    flip: bool = False
    member: str = "1"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the weights and the preprocessing; stored by galleries."""

    @abstractmethod
    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        """Return `outputs` for one batch: uint8 RGB `(b, h, w, 3)` of `image_size`, or a mapping.

        Raises:
            InputError: pixels that uint8 does not hold.
        """

    @property
    def pretrained(self) -> ModelCard | None:
        """Card of the pretrained model; None for other models."""
        return self.source.pretrained

    @property
    def takes_clips(self) -> bool:
        """True for a model of tracklets."""
        return "clips" in self.inputs

    def select(self, *outputs: str) -> "Embedder":
        """Return an embedder of the same model with other outputs.

        Raises:
            InputError: the model does not have these outputs.
        """
        fix = f"Export {self.source} with local=True, or pass its run folder."
        for name in outputs:
            checks.one_of(self.available, fix, outputs=name)
        other = copy.copy(self)
        other.outputs = outputs
        return other

    def keras(self) -> "KerasEmbedder | None":
        """Return the embedder of the Keras model; None for exports and network files."""
        return None

    def pooled(self, stripes: int | None = None) -> "Embedder":
        """Return an embedder with an output `local`, stripes pooled from the feature map.

        Exports and network files have a fixed graph: they are returned unchanged.

        Args:
            stripes: number of stripes; None: one for each row of the feature map.
        """
        return self

    def embed(
        self, images: Any, batch_size: int = 16, frames: int = 8, progress: Progress | None = None
    ) -> Any:
        """Return the embeddings of images, or of tracklets: the mean over the clips of each.

        Args:
            images: n images: a path, a PIL image, a uint8 RGB array `(h, w, 3)` or
                `(b, h, w, 3)` of any size, or a list of these, which may be mixed; or
                `keras_reid.data.PersonImages`, with keypoints if the model takes them. If they
                have a column "tracklet", n is the number of tracklets. All images are turned
                upright by their Exif orientation and resized to `image_size`.
            batch_size: images at a time; the feature maps of 16 fit into the caches of a CPU.
            frames: frames of a clip, for a model of tracklets; other models embed each image.
            progress: called with the number of images, or clips, done and of all.

        Returns:
            `(n, d)`, or a dict by the names of `outputs`; `(1, d)` for one image. Tracklets are in
            the order of `images.per_tracklet()`.

        Raises:
            InputError: no images, a file that does not decode, pixels that uint8 does not hold, or
                images without the tracklets or keypoints that the model takes.
        """
        from keras_reid.data.images import PersonImages
        from keras_reid.data.inputs import pixel_batches, single_images

        self._check_columns(images)
        if self.takes_clips:
            return self._embed_clips(images, min(batch_size, len(images)), frames, progress)
        labeled = isinstance(images, PersonImages)
        files = images.path.tolist() if labeled else single_images(images)
        batches: Iterator[Any] = pixel_batches(files, batch_size, self.image_size)
        if KEYPOINTS in self.inputs:
            batches = _with_keypoints(batches, images.columns[KEYPOINTS])
        each = self(reported(batches, len(files), progress))
        return tracklet_means(each, images.owner) if labeled and images.has_tracklets else each

    def _embed_clips(
        self, images: Any, batch_size: int, frames: int, progress: Progress | None
    ) -> Any:
        """Return the embeddings of tracklets by a model of tracklets."""
        from keras_reid.data import clip_batches

        counts = -(-np.bincount(images.owner) // frames)
        batches = clip_batches(images, frames, max(1, batch_size // frames), self.image_size)
        clips = self(reported(batches, int(counts.sum()), progress))
        return tracklet_means(clips, np.repeat(np.arange(len(counts)), counts))

    def _check_columns(self, images: Any) -> None:
        """Raise unless the images have the columns of the inputs besides the pixels."""
        needed = {"tracklet"} if self.takes_clips else self.inputs - {"images"}
        missing = sorted(needed - {*getattr(images, "columns", ())})
        if missing:
            rule = f"keras_reid.data.PersonImages with the columns {', '.join(missing)}"
            received = Shown(f"{type(images).__name__} without these columns")
            raise invalid("images", f"{rule} for {self.source}", received, "Add them.")

    def __call__(self, batches: Iterable[Any]) -> Any:
        """Return the embeddings of all batches, for example of `keras_reid.data.image_batches`.

        Args:
            batches: inputs of the model, of `image_size`; see `run`.

        Raises:
            InputError: no batches, or pixels that uint8 does not hold, such as floats from 0 to 1.
        """
        return joined([self.run(inputs) for inputs in batches], self.outputs)


def _with_keypoints(batches: Iterable[np.ndarray], points: np.ndarray) -> Iterator[Any]:
    """Yield batches of pixels with their keypoints (b, k, 3)."""
    done = 0
    for pixels in batches:
        rows = points[done : done + len(pixels)].astype(np.float32)
        yield {"images": pixels, KEYPOINTS: rows}
        done += len(pixels)


def reported(batches: Iterable[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    """Yield the batches and report progress."""
    done = 0
    for batch in batches:
        yield batch
        done += len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
        if progress:
            progress(done, total)


def tracklet_means(embeddings: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """`e/|e|` (n, d), with e the mean of the embeddings of each owner.

    Args:
        embeddings: (m, d).
        owner: (m,) integers from 0 to n − 1.

    Example:
        >>> tracklet_means(np.eye(2), np.array([0, 0])).round(3)
        array([[0.707, 0.707]], dtype=float32)
    """
    total = np.zeros((owner.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(total, owner, embeddings)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def joined(
    parts: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[str] = ONLY_EMBEDDING
) -> Any:
    """Return the concatenated outputs of batches: a single `embedding` as an array, else a dict.

    Args:
        parts: outputs of each batch by name.
        outputs: names of the returned outputs.

    Raises:
        InputError: no batches.
    """
    checks.at_least(1, images=len(parts))
    joint = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    return joint["embedding"] if tuple(outputs) == ONLY_EMBEDDING else joint
