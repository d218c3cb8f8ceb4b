"""Files of features of any framework: one file of arrays, or a memory-mapped folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import invalid_file
from keras_reid.evaluation.labels import column
from keras_reid.io import new_file, parsing, read_arrays, read_matlab
from keras_reid.nearest.arrays import real_array

RANKS = {"embedding": 2, "local": 3}
LABELS = ("identity", "camera")
NAMES = (*RANKS, *LABELS, "path")
# Names in pytorch_result.mat of Person_reID_baseline_pytorch, after "query_" and "gallery_".
MATLAB_NAMES = {"embedding": "f", "identity": "label", "camera": "cam"}
SIDES = ("query", "gallery")
SAVE_AGAIN = "Save it again."


class StoredFeatures(NamedTuple):
    """Features of n images, with identities, cameras and paths (n,), or None if unknown.

    Example:
        >>> import numpy as np
        >>> StoredFeatures({"embedding": np.eye(2)}, np.array([7, 8]), None).identity.tolist()
        [7, 8]
    """

    features: dict[str, np.ndarray]
    identity: np.ndarray | None
    camera: np.ndarray | None
    path: np.ndarray | None = None


def load_features(path: str | os.PathLike[str], side: str | None = None) -> StoredFeatures:
    """Read features from `FILE.npz`, `FILE.mat`, or a folder with one `.npy` of each name.

    Arrays of folders are memory-mapped. `embedding` is (n, d), `local` (n, s, d); at least one of
    them is required. `identity` and `camera` are (n,), integers or strings, which are read in
    Unicode NFC. `path` are the (n,) files of the images. `numpy.savez("query.npz", embedding=…,
    identity=…, camera=…)` writes such a file from any framework. A `.mat` file has the arrays
    `query_f`, `query_label`, `query_cam`, `gallery_f`, `gallery_label` and `gallery_cam`, as
    `pytorch_result.mat` of layumi's Person_reID_baseline_pytorch, or the names above.

    Args:
        path: the file or folder.
        side: `"query"` or `"gallery"`, for files with both; None: rows of the query, then of the
            gallery.

    Raises:
        InputError: a missing file, no features, or arrays of another shape or type.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_features(f"{folder}/query.npz", {"embedding": np.eye(2)}, np.array([7, 8]))
        ...     stored = load_features(f"{folder}/query.npz")
        >>> stored.identity.tolist(), stored.features["embedding"].shape
        ([7, 8], (2, 2))
    """
    if holds_both_sides(path):
        arrays, names = _read_matlab(path, SIDES if side is None else (side,))
    else:
        arrays, names = read_arrays(path, NAMES)
    features = {
        name: real_array(arrays[name], rank, f"{path}: {name}")
        for name, rank in RANKS.items()
        if name in arrays
    }
    if not features:
        arrays_there = ", ".join(names) or "none"
        raise invalid_file(path, "have an array embedding or local", arrays_there, SAVE_AGAIN)
    count = len(next(iter(features.values())))
    labels = {k: column(arrays[k], count, f"{path}: {k}") for k in LABELS if k in arrays}
    path_of = np.array(column(arrays["path"], count, f"{path}: path")) if "path" in arrays else None
    return StoredFeatures(features, labels.get("identity"), labels.get("camera"), path_of)


def holds_both_sides(path: str | os.PathLike[str]) -> bool:
    """Return True for a file of features with query and gallery: `FILE.mat`.

    Example:
        >>> holds_both_sides("pytorch_result.mat"), holds_both_sides("query.npz")
        (True, False)
    """
    return Path(path).suffix.lower() == ".mat"


def _read_matlab(
    path: str | os.PathLike[str], sides: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of the sides, one after the other, and the names of all arrays."""
    values = read_matlab(path)
    if not any(f"{side}_f" in values for side in SIDES):
        return {name: values[name] for name in NAMES if name in values}, sorted(values)
    parts = [_restored(values, side) for side in sides if f"{side}_f" in values]
    names = [name for name in MATLAB_NAMES if parts and all(name in part for part in parts)]
    try:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    except ValueError as error:
        shapes = " and ".join(str(part["embedding"].shape) for part in parts)
        rule = "have query_f and gallery_f of one embedding size"
        raise invalid_file(path, rule, shapes, SAVE_AGAIN) from error
    return joined, sorted(values)


def _restored(values: dict[str, np.ndarray], side: str) -> dict[str, np.ndarray]:
    """Return the arrays of a side, with labels (n,) of integers or strings."""
    part = {n: values[f"{side}_{k}"] for n, k in MATLAB_NAMES.items() if f"{side}_{k}" in values}
    for name in {*LABELS} & {*part}:
        labels = np.atleast_1d(part[name]).ravel()
        if labels.dtype.kind == "f" and ((labels == labels.round()) & (abs(labels) < 2**53)).all():
            labels = labels.astype(np.int64)
        part[name] = np.char.rstrip(labels) if labels.dtype.kind == "U" else labels
    features = part["embedding"]
    rows = max(1, len(part.get("identity", ())))
    if features.ndim < 2 and features.size % rows == 0:  # one image, or one number each
        part["embedding"] = features.reshape(rows, -1)
    return part


def save_features(
    path: str | os.PathLike[str],
    features: dict[str, np.ndarray],
    identity: np.ndarray | None = None,
    camera: np.ndarray | None = None,
) -> None:
    """Write `FILE.npz` for `load_features`.

    Args:
        path: new file.
        features: arrays by name: `embedding` (n, d), `local` (n, s, d).
        identity: (n,) integers or strings, or None.
        camera: (n,) integers or strings, or None.

    Raises:
        InputError: the file exists.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_features(f"{folder}/query.npz", {"embedding": np.eye(2)})
        ...     load_features(f"{folder}/query.npz").features["embedding"].shape
        (2, 2)
    """
    arrays = {**features, "identity": identity, "camera": camera}
    present: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **present)


def save_matlab(
    path: str | os.PathLike[str],
    query: StoredFeatures,
    gallery: StoredFeatures,
    overwrite: bool = False,
) -> None:
    """Write embeddings as `FILE.mat` with the arrays of `pytorch_result.mat`, see `load_features`.

    Args:
        path: new file.
        query: embeddings and labels of the query images.
        gallery: embeddings and labels of the gallery images.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists, or an array has 4 GiB or more.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> stored = StoredFeatures({"embedding": np.eye(2)}, np.array([7, 8]), None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_matlab(f"{folder}/features.mat", stored, stored)
        ...     load_features(f"{folder}/features.mat", "gallery").identity.tolist()
        [7, 8]
    """
    from scipy.io import savemat

    arrays = {
        f"{side}_{key}": np.asarray(array)
        for side, (features, identity, camera, _) in zip(SIDES, (query, gallery), strict=True)
        for key, array in (("f", features["embedding"]), ("label", identity), ("cam", camera))
        if array is not None
    }
    rule = "have arrays below 4 GiB"
    with new_file(path, overwrite) as partial, parsing(path, rule, "Save .npz files.", ValueError):
        savemat(partial, arrays, appendmat=False)
