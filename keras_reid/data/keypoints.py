"""Body points of images: read from a table, or estimated once and stored in a table.

Points are (k, 3): x and y as shares of the width and height of the image, 0 at the left and upper
edge, and a confidence in [0, 1], 0 for a hidden point. The table has a column `file`, and NAME_x,
NAME_y (pixels of the file) and optionally NAME_c (confidence) for each point; an empty cell marks a
hidden point. Estimated tables also have the column `digest`, of the content of the file.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging
from PIL import Image

from keras_reid import checks
from keras_reid.data.images import PersonImages
from keras_reid.errors import InputError, counted, invalid, invalid_file
from keras_reid.io import content_digest, parsing, read_table, replaced_file, write_table
from keras_reid.names import StrPath, expanded, normalized
from keras_reid.pixels import decode, upright_size
from keras_reid.skeletons import COCO, KEYPOINTS, SKELETONS, Skeleton

SAVED_EVERY = 1024  # images
COLUMNS = [f"{n}_{axis}" for s in SKELETONS.values() for n in s.names for axis in "xyc"]


class PoseEstimator(Protocol):
    """Estimator of the body points of one person."""

    skeleton: Skeleton

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 points (b, k, 3) of uint8 RGB images (h, w, 3) of any sizes."""


class MoveNet:
    """MoveNet Lightning for one person, run by LiteRT: the 17 points of COCO.

    The image is scaled to fit into the model's square and centered on black.

    Args:
        path: path of the .tflite file: input (1, s, s, 3), output (1, 1, 17, 3) of y, x, score.
        threads: number of threads of the interpreter.

    Raises:
        InputError: LiteRT is not installed; a missing or broken file, or another model.
    """

    skeleton = COCO

    def __init__(self, path: StrPath, threads: int | None = None) -> None:
        self._net = interpreter(path, "MoveNet", threads)
        (self._input,) = self._net.get_input_details()
        (self._output,) = self._net.get_output_details()
        shapes = tuple(self._input["shape"]), tuple(self._output["shape"])
        if shapes != ((1, *2 * shapes[0][1:2], 3), (1, 1, 17, 3)):
            rule = "be MoveNet, of shapes (1, s, s, 3) and (1, 1, 17, 3)"
            raise invalid_file(path, rule, shapes, "Download it again.")

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the points (b, 17, 3) of b images; points outside the image have confidence 0."""
        return np.stack([self._points(checks.pixels(image)) for image in images])

    def _points(self, image: np.ndarray) -> np.ndarray:
        side = int(self._input["shape"][1])
        height, width = image.shape[:2]
        scale = side / max(height, width)
        high, wide = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (side - high) // 2, (side - wide) // 2
        square = np.zeros((1, side, side, 3), np.uint8)
        resized = Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR)
        square[0, top : top + high, left : left + wide] = np.asarray(resized)
        self._net.set_tensor(self._input["index"], square.astype(self._input["dtype"]))
        self._net.invoke()
        y, x, score = self._net.get_tensor(self._output["index"])[0, 0].astype(np.float32).T
        x, y = (x * side - left) / wide, (y * side - top) / high
        inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        return np.stack([x, y, np.where(inside, np.clip(score, 0, 1), 0)], axis=-1)


def interpreter(path: StrPath, role: str, threads: int | None = None) -> Any:
    """Return a LiteRT interpreter of a .tflite file, ready to run.

    Args:
        path: path of the file.
        role: role of the model, for errors, such as "MoveNet".
        threads: number of threads of the interpreter; None: one for each processor.

    Raises:
        InputError: LiteRT is not installed, or the file is missing or broken.
    """
    module = checks.installed("ai_edge_litert.interpreter", "litert")
    rule, fix = f"be {role} for LiteRT", "Check the path, or download it again."
    with parsing(path, rule, fix, (ValueError, RuntimeError)):
        net = module.Interpreter(str(expanded(path)), num_threads=threads or os.cpu_count())
        net.allocate_tensors()
    return net


def estimator_of(source: str) -> PoseEstimator:
    """Return the `MoveNet` of `movenet:FILE.tflite`.

    Args:
        source: `movenet:` and the path of the file.

    Raises:
        InputError: the text has another form, or as in `MoveNet`.
    """
    name, _, path = source.partition(":")
    if name != "movenet" or not path:
        raise invalid("keypoints", "movenet:FILE.tflite", source)
    return MoveNet(path)


def read_keypoints(images: PersonImages, table: StrPath) -> PersonImages:
    """Return the images with the column "keypoints" (n, k, 3) of a table.

    The column `file` has the end of the path of an image, with or without folders, or its path
    relative to the folder of the table. Images without a row have hidden points; a warning counts
    these images.

    Args:
        images: n readable images.
        table: CSV file, see the description of this module.

    Raises:
        InputError: the table is missing or malformed, or has no row for any of the images.
    """
    table = expanded(table)
    skeleton, rows, _ = read_points(table)
    rows = {normalized(file.replace("\\", "/")): points for file, points in rows.items()} | rows
    points = [_row_of(path, table, rows) for path in images.path.tolist()]
    missing = [path for path, row in zip(images.path, points, strict=True) if row is None]
    if missing:
        received = f"no row for {counted(len(missing), 'image')} such as {missing[0]}"
        if len(missing) == len(images):
            fix = "The column file must contain the ends of the paths of the images."
            raise invalid_file(table, "have points of the images", received, fix)
        logging.warning("%s has %s", table, received)
    return _with_points(images, skeleton, points)


def estimate_keypoints(
    images: PersonImages,
    estimator: PoseEstimator,
    table: StrPath,
    progress: Callable[[int, int], None] | None = None,
) -> PersonImages:
    """Return the images with the column "keypoints", estimated or read from the table.

    Points of a file are estimated again if its content changed or the table has no digest of it.

    Args:
        images: n readable images.
        estimator: see `PoseEstimator`.
        table: file for the estimates. It is replaced every 1,024 images, so that an interrupted
            estimation resumes.
        progress: called with the numbers of processed and of all images.

    Raises:
        InputError: the table has another skeleton or cannot be written.
    """
    table = expanded(table)
    # Names relative to the table's folder, so that a data set can be moved with it.
    names = {path: _from(table, path) for path in images.path.tolist()}
    digests = {name: content_digest(path) for path, name in names.items()}
    skeleton, rows, before = read_points(table) if table.exists() else (estimator.skeleton, {}, {})
    if skeleton != estimator.skeleton:
        rule = f"have the {len(estimator.skeleton.names)} points of this estimator"
        raise invalid_file(table, rule, len(skeleton.names), "Choose another table.")
    rows = {n: row for n, row in rows.items() if n not in digests or digests[n] == before.get(n)}
    digests = before | digests
    todo = [path for path, name in names.items() if name not in rows]
    for start in range(0, len(todo), SAVED_EVERY):
        for path in todo[start : start + SAVED_EVERY]:
            pixels = decode(path)
            rows[names[path]] = in_pixels(estimator([pixels])[0], *pixels.shape[1::-1])
        write_points(table, skeleton, rows, digests)
        if progress:
            progress(min(start + SAVED_EVERY, len(todo)), len(todo))
    return _with_points(images, skeleton, [rows[name] for name in names.values()])


def _with_points(
    images: PersonImages, skeleton: Skeleton, rows: Sequence[np.ndarray | None]
) -> PersonImages:
    """Add the points of each image, which are in pixels; None: all are hidden."""
    points = np.zeros((len(images), len(skeleton.names), 3), np.float32)
    for i, (path, pixels) in enumerate(zip(images.path.tolist(), rows, strict=True)):
        if pixels is not None:
            shares = (pixels[:, :2] + 0.5) / upright_size(path)  # centers are half a pixel in
            points[i] = np.concatenate([shares, pixels[:, 2:]], axis=1)
    return images.with_columns(**{KEYPOINTS: points})


def annotated(
    images: PersonImages,
    source: str,
    cache: StrPath | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PersonImages:
    """Return the images with the column "keypoints" from `FILE.csv` or `movenet:FILE.tflite`.

    Args:
        images: n readable images.
        source: table or estimator.
        cache: table for the points of an estimator.
        progress: see `estimate_keypoints`.

    Raises:
        InputError: see `read_keypoints`, `MoveNet` and `estimate_keypoints`.
    """
    if source.lower().endswith(".csv"):
        return read_keypoints(images, source)
    estimator = estimator_of(source)
    if cache is None:
        message = "With an estimator, `keypoints_cache` must be a table, FILE.csv, got None."
        raise InputError(message, "keypoints_cache")
    return estimate_keypoints(images, estimator, cache, progress)


def _from(table: Path, path: str) -> str:
    """Return the path of an image relative to the folder of its table."""
    return os.path.relpath(os.path.abspath(path), table.parent.absolute())


def _row_of(path: str, table: Path, rows: dict[str, np.ndarray]) -> np.ndarray | None:
    names = Path(path).parts
    ends = [_from(table, path), *("/".join(names[i:]) for i in range(len(names)))]
    ends += [normalized(end) for end in ends]
    return next((rows[end] for end in ends if end in rows), None)


def in_pixels(shares: np.ndarray, width: int, height: int) -> np.ndarray:
    """Convert points (k, 3) from shares of width and height to pixels."""
    pixels = shares[:, :2] * (width, height) - 0.5
    return np.concatenate([pixels, shares[:, 2:]], axis=1)


def read_points(table: Path) -> tuple[Skeleton, dict[str, np.ndarray], dict[str, str]]:
    """Return the skeleton of a table, and for each file the points (k, 3) in pixels and a digest.

    The dictionary of digests lacks files that have no digest.
    """
    header, lines = read_table(table, ("file",), [*COLUMNS, "digest"])
    skeleton = _skeleton(header, table)
    rows, digests = {}, {}
    for number, values in lines:
        with parsing(f"{table}, line {number}", "have numbers after the file", "Correct the line."):
            points = [_point(name, values) for name in skeleton.names]
        rows[values["file"]] = np.array(points)
        if values.get("digest"):
            digests[values["file"]] = values["digest"]
    return skeleton, rows, digests


def _point(name: str, values: dict[str, str]) -> tuple[float, float, float]:
    texts = [values[f"{name}_x"], values[f"{name}_y"], values.get(f"{name}_c", "1")]
    if not all(texts):
        return 0.0, 0.0, 0.0
    x, y, confidence = map(float, texts)
    if not np.isfinite([x, y]).all() or not 0 <= confidence <= 1:
        raise ValueError(f"{', '.join(texts)}, not finite or with a confidence outside [0, 1]")
    return x, y, confidence


def _skeleton(header: list[str], table: Path) -> Skeleton:
    for skeleton in SKELETONS.values():
        if {f"{n}_{a}" for n in skeleton.names for a in "xy"} <= set(header):
            return skeleton
    names = " or ".join(", ".join(s.names) for s in SKELETONS.values())
    rule, received = f"have NAME_x and NAME_y of the points {names}", ", ".join(header)[:200]
    raise invalid_file(table, rule, received, "Rename the columns.")


def write_points(
    table: Path,
    skeleton: Skeleton,
    rows: dict[str, np.ndarray],
    digests: dict[str, str] | None = None,
) -> None:
    """Write the points (k, 3) of images, in pixels, and digests atomically."""
    header = ["file", *(f"{name}_{axis}" for name in skeleton.names for axis in "xyc")]
    lines = [[name, *(f"{value:.4g}" for value in points.ravel())] for name, points in rows.items()]
    if digests is not None:
        header.append("digest")
        lines = [[*line, digests.get(line[0], "")] for line in lines]
    with replaced_file(table) as new:
        write_table(new, header, lines)
