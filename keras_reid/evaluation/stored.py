"""Features on disk, of any framework: one file of arrays, or a folder that is mapped."""

import os
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.files import new_file
from keras_reid.foreign import array_names, read_arrays
from keras_reid.names import normalized_labels

RANKS = {"embedding": 2, "local": 3}
LABELS = ("identity", "camera")
NAMES = (*RANKS, *LABELS)


class StoredFeatures(NamedTuple):
    """Features, and whom the images show, which camera took them and where they are, if known."""

    features: dict[str, np.ndarray]
    identity: np.ndarray | None
    camera: np.ndarray | None
    path: np.ndarray | None = None


def load_features(path: str | os.PathLike[str]) -> StoredFeatures:
    """`FILE.npz` with arrays, or a folder with one `.npy` of each name, which is memory-mapped.

    `embedding` is (n, d), `local` (n, s, d); one of them must be there. `identity` and `camera`
    are (n,), integers or strings. Strings are read in Unicode NFC.
    `numpy.savez("query.npz", embedding=…, identity=…, camera=…)` writes such a file from any
    framework.

    Raises:
        InputError: nothing to read, no features, arrays of objects, or such that do not fit.
    """
    found = read_arrays(path, NAMES)
    features = {name: found[name] for name in RANKS if name in found}
    if not features:
        raise InputError(
            f"features need an array named embedding or local, but {path} holds "
            f"{', '.join(array_names(path)) or 'none'}: name it so"
        )
    for name, array in features.items():
        if array.ndim != RANKS[name] or array.dtype.kind not in "fiu" or not array.size:
            raise InputError(
                f"{name} is an array of numbers (n, {'s, ' if name == 'local' else ''}d): {path} "
                f"has {array.dtype} {array.shape}; save it so"
            )
    count = len(next(iter(features.values())))
    for name in LABELS:
        if name in found and (found[name].shape != (count,) or found[name].dtype.kind not in "iuU"):
            raise InputError(
                f"{name} is an array (n,) of integers or texts, n={count} as the features: {path} "
                f"has {found[name].dtype} {found[name].shape}; save it so"
            )
    labels = {name: normalized_labels(found[name]) for name in LABELS if name in found}
    return StoredFeatures(features, labels.get("identity"), labels.get("camera"))


def save_features(
    path: str | os.PathLike[str],
    features: dict[str, np.ndarray],
    identity: np.ndarray | None = None,
    camera: np.ndarray | None = None,
) -> None:
    """Writes what `load_features` reads, as `FILE.npz`.

    Raises:
        InputError: the file exists.
    """
    arrays = {**features, "identity": identity, "camera": camera}
    known: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **known)
