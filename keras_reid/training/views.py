"""Views of training images with the embeddings of a teacher, in files that training reads."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks, data, pixels
from keras_reid.data import PersonImages
from keras_reid.data.pipeline import AHEAD
from keras_reid.data.sampling import epoch_rows, plan_epoch, sampling_classes
from keras_reid.data.views import ViewSources, view, view_sources
from keras_reid.errors import Shown, invalid
from keras_reid.inference import Embedder
from keras_reid.io import check_room, locked, parsing, read_json, replaced_file
from keras_reid.names import StrPath, expanded
from keras_reid.training.teachers import check_teacher

FORMAT = "keras_reid views, version 1"
SHARD = 1024  # views of a file, which an interrupted generation repeats
BATCH = 32  # views that the teacher embeds at a time

Labels = dict[str, Any]
Progress = Callable[[int, int], None]


class Round:
    """Views of a round, memory-mapped, with the teacher's embeddings.

    Attributes:
        sources: images of each view.
    """

    def __init__(self, files: Sequence[Path], sources: ViewSources) -> None:
        self.shards = [_mapped(file) for file in files]
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources.row)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return views uint8 `(b, h, w, 3)` and embeddings float32 `(b, d)` of rows `(b,)`."""
        values = np.empty(len(rows), self.shards[0].dtype)
        shard, place = np.divmod(rows, SHARD)
        for number in np.unique(shard):
            values[shard == number] = self.shards[number][place[shard == number]]
        return values["pixels"].copy(), values["embedding"].astype(np.float32)

    def classes(self, index: np.ndarray) -> np.ndarray:
        """Return the class index of each view; mixtures are unlabeled, with negative indices.

        Args:
            index: (n,) class index of each image, negative for unlabeled ones.
        """
        own = index[self.sources.row]
        unlabeled = (own < 0) | (self.sources.partner >= 0)
        return np.where(unlabeled, -1 - np.arange(len(own)), own)


def _mapped(file: Path) -> np.ndarray:
    fix = "Remove it; the same command makes it again."
    with parsing(file, "hold views", fix, Exception):  # NumPy raises many kinds
        return np.load(file, mmap_mode="r")


class Views:
    """Views of images with the teacher's embeddings, `FOLDER/round-R/SHARD.npy`.

    A view is made at the larger of the image sizes of teacher and student, then resized for each.
    Each shard is written when it is complete, and an interrupted generation continues with the next
    shard. Views depend on the images, the round and the seed only.

    Args:
        folder: new folder, or one with views of the same arguments.
        teacher: embedder of single images.
        images: n images, with or without identities.
        image_size: (h, w) of the student in pixels.
        views_per_round: number of views of a round.
        seed: seed of the views.

    Attributes:
        images: the readable images.

    Raises:
        InputError: the teacher takes other inputs than images, or the folder has views of another
            teacher, or of other images or settings.
    """

    def __init__(
        self,
        folder: StrPath,
        teacher: Embedder,
        images: PersonImages,
        image_size: tuple[int, int],
        views_per_round: int,
        seed: int = 0,
    ) -> None:
        check_teacher(teacher)
        checks.at_least(1, views_per_round=views_per_round)
        self.folder = expanded(folder)
        self.teacher = teacher
        self.images = data.readable(images)
        self.paths = self.images.path.tolist()
        self.image_size = image_size
        self.views_per_round = views_per_round
        self.seed = seed
        height, width = np.maximum(image_size, teacher.image_size).tolist()
        self.view_size = height, width
        fields = [("pixels", np.uint8, (*image_size, 3))]
        self.dtype = np.dtype([*fields, ("embedding", np.float16, (teacher.embedding_dim,))])

    def round(self, number: int, progress: Progress | None = None) -> Round:
        """Return the views of round 0, 1, …; generate missing ones.

        Args:
            number: number of the round.
            progress: called with the numbers of existing views and of all.
        """
        sources = view_sources(len(self.paths), self.views_per_round, (self.seed, number))
        files = [self._folder(number) / f"{i:05}.npy" for i in range(-(-len(sources.row) // SHARD))]
        with locked(self.folder / ".lock", wait=True):
            self._check_folder()
            for i, file in enumerate(files):
                rows = range(i * SHARD, min((i + 1) * SHARD, len(sources.row)))
                if not file.exists():
                    self._write(file, sources, number, rows)
                if progress:
                    progress(rows.stop, len(sources.row))
        return Round(files, sources)

    def remove(self, number: int) -> None:
        """Remove the files of a round."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self.folder / f"round-{number}"

    def _check_folder(self) -> None:
        """Write the settings of the views, or raise if the folder has views of other settings."""
        file = self.folder / "views.json"
        settings = {
            "format": FORMAT,
            "teacher": self.teacher.fingerprint,
            "images": hashlib.sha256(
                "\n".join(map(os.path.abspath, self.paths)).encode()
            ).hexdigest(),
            "image_size": list(self.image_size),
            "views_per_round": self.views_per_round,
            "seed": self.seed,
        }
        if not file.exists():
            with replaced_file(file) as new:
                new.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        before = read_json(file, {}, "Give another folder.")
        if other := [name for name in settings if before.get(name) != settings[name]]:
            rule = "a new folder, or one with views of the same settings"
            received = Shown(f"{self.folder} with another {', '.join(other)}")
            raise invalid("views_dir", rule, received, "Give another folder.")

    def _write(self, file: Path, sources: ViewSources, number: int, rows: range) -> None:
        """Make and embed the views of a shard."""
        shard = np.empty(len(rows), self.dtype)
        file.parent.mkdir(parents=True, exist_ok=True)
        check_room(file, shard.nbytes)
        make = partial(self._view, sources, number)
        for start, views in _ahead(make, rows):
            own, theirs = ([pair[i] for pair in views] for i in (0, 1))
            block = shard[start : start + len(views)]
            block["pixels"] = own
            block["embedding"] = self.teacher.run(np.stack(theirs))["embedding"]
        with replaced_file(file) as new, new.open("wb") as opened:
            np.save(opened, shard)

    def _view(self, sources: ViewSources, number: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a view at the sizes of student and teacher."""
        rows = (sources.row[index], sources.partner[index])
        images = [pixels.decode(self.paths[row]) for row in rows if row >= 0]
        rng = np.random.default_rng((self.seed, number, index))
        made = view(images, self.view_size, rng)
        return pixels.resize(made, self.image_size), pixels.resize(made, self.teacher.image_size)


def _ahead(make: Callable[[int], Any], rows: range) -> Iterator[tuple[int, list[Any]]]:
    """Yield the start and the results of each batch of rows; threads make the next batch."""
    with ThreadPoolExecutor() as pool:
        begun: list[Any] = []
        for start in range(0, len(rows) + BATCH, BATCH):
            begun.append([pool.submit(make, row) for row in rows[start : start + BATCH]])
            if len(begun) > 1:
                yield start - BATCH, [future.result() for future in begun.pop(0)]


def rounds(epochs: range, round_epochs: int) -> Iterator[tuple[int, range]]:
    """Yield the number of each round, and its epochs.

    Args:
        epochs: epochs of a phase, or its last ones.
        round_epochs: number of epochs of a round.

    Example:
        >>> list(rounds(range(3, 6), 4))
        [(0, range(3, 4)), (1, range(4, 6))]
    """
    start = epochs.start
    while start < epochs.stop:
        number = start // round_epochs
        stop = min(epochs.stop, (number + 1) * round_epochs)
        yield number, range(start, stop)
        start = stop


def view_batches(
    views: Round,
    index: np.ndarray,
    groups: tuple[int, int],
    steps: int,
    seed: int,
    first_epoch: int,
) -> tf.data.Dataset:
    """Return an endless stream of batches of a round: views, and labels with `teacher`.

    Args:
        views: the round.
        index: (n,) class index of each image; different negative numbers for unlabeled images.
        groups: P, K as in `keras_reid.data.pk_batches`.
        steps: number of batches in an epoch.
        seed: seed of the order.
        first_epoch: first epoch of the stream.

    Returns:
        Elements (uint8 (b, h, w, 3), {"identity": int32 (b,), "teacher": float32 (b, d)}).
    """
    labels = views.classes(index).astype(np.int32)
    classes = sampling_classes(labels, groups[1])
    plan = plan_epoch(np.bincount(classes), *groups)
    dtype = views.shards[0].dtype

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = epoch_rows(classes, plan, seed, epoch)[:steps]
        return tf.data.Dataset.from_tensor_slices(rows)

    def read(rows: tf.Tensor) -> tuple[tf.Tensor, Labels]:
        images, teacher = tf.numpy_function(
            views.read, [rows], (tf.uint8, tf.float32), stateful=False
        )
        images = tf.ensure_shape(images, (plan.batch_size, *dtype["pixels"].shape))
        teacher = tf.ensure_shape(teacher, (plan.batch_size, *dtype["embedding"].shape))
        return images, {"identity": tf.gather(tf.constant(labels), rows), "teacher": teacher}

    rows = tf.data.Dataset.counter(first_epoch).flat_map(of_epoch)
    return rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(AHEAD)


def with_class_labels(images: Any, labels: Labels) -> tuple[Any, Labels, dict[str, tf.Tensor]]:
    """Return a batch with the label `class` and sample weights, for a classifier.

    Unlabeled images have the class 0 and the weight 0.
    """
    identity = labels["identity"]
    weights = {"logits": tf.cast(identity >= 0, tf.float32)}
    return images, {**labels, "class": tf.maximum(identity, 0)}, weights
