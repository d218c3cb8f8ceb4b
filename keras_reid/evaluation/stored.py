"""Features on disk, of any framework: one file of arrays, or a folder that is mapped."""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.files import new_file

NAMES = ("embedding", "local", "identity", "camera")


class StoredFeatures(NamedTuple):
    """Features, and whom the images show and which camera took them where that is known."""

    features: dict[str, np.ndarray]
    identity: np.ndarray | None
    camera: np.ndarray | None


def load_features(path: str | os.PathLike[str]) -> StoredFeatures:
    """`FILE.npz` with arrays, or a folder with one `.npy` of each name, which is memory-mapped.

    `embedding` is (n, d), `local` (n, s, d); one of them must be there. `identity` and `camera`
    are (n,), integers or strings. `numpy.savez("query.npz", embedding=…, identity=…, camera=…)`
    writes such a file from any framework.

    Raises:
        InputError: nothing to read, no features, or arrays of objects.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = {
                name: np.load(path / f"{name}.npy", mmap_mode="r")
                for name in NAMES
                if (path / f"{name}.npy").is_file()
            }
        else:
            with np.load(path) as file:
                found = {name: file[name] for name in NAMES if name in file.files}
                held = sorted(file.files)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"features are an .npz file or a folder of .npy files, but reading {path} gave "
            f"'{error}': write one with numpy.savez(…, embedding=…, identity=…, camera=…)"
        ) from error
    features = {name: array for name, array in found.items() if name in ("embedding", "local")}
    if not features:
        held = sorted(p.stem for p in path.glob("*.npy")) if path.is_dir() else held
        raise InputError(
            f"features need an array named embedding or local, but {path} holds "
            f"{', '.join(held) or 'none'}: name it so"
        )
    return StoredFeatures(features, found.get("identity"), found.get("camera"))


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
