"""Stored embeddings of the teacher of a distillation."""

import os
from typing import TYPE_CHECKING

import numpy as np

from keras_reid import evaluation
from keras_reid.errors import Shown, invalid, name_some

if TYPE_CHECKING:
    from keras_reid.data import PersonImages
    from keras_reid.inference import Embedder

TEACHER = "teacher"  # column and label: embedding of a teacher


def check_teacher(teacher: "Embedder") -> None:
    """Raise `InputError` unless the teacher embeds single images."""
    if teacher.inputs != {"images"}:
        received = Shown(f"{teacher.source}, which takes {' and '.join(sorted(teacher.inputs))}")
        raise invalid("teacher", "a model of single images", received)


def with_embeddings(images: "PersonImages", file: str) -> "PersonImages":
    """Return the images with the column `teacher` `(n, d)`: stored embeddings, by path.

    Args:
        images: n images.
        file: file of `evaluation.load_features` with `embedding` and `path`. Paths are absolute, or
            relative to the current folder.

    Raises:
        InputError: the file has no paths, or not those of all images.
    """
    stored = evaluation.load_features(file)
    if stored.path is None or "embedding" not in stored.features:
        rule, fix = "a file with embedding and path", "Save the paths of the images, too."
        raise invalid("teacher_embeddings", rule, file, fix)
    row = {os.path.realpath(path): number for number, path in enumerate(stored.path.tolist())}
    rows = [row.get(os.path.realpath(path), -1) for path in images.path.tolist()]
    if missing := [path for path, found in zip(images.path, rows, strict=True) if found < 0]:
        received = Shown(f"{file} without {len(missing)} of them ({name_some(missing, most=3)})")
        raise invalid("teacher_embeddings", "a file with all training images", received)
    embeddings = np.asarray(stored.features["embedding"][rows], np.float32)
    return images.with_columns(**{TEACHER: embeddings})
