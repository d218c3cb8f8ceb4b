"""Arrays in NumPy and MATLAB files."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np

from keras_reid.errors import invalid_file
from keras_reid.io.reading import parsing
from keras_reid.names import StrPath, expanded

MATLAB_BYTES, MATLAB_SECONDS = 2**33, 120


def read_arrays(path: StrPath, names: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the named arrays of an `.npz` file or of a folder of `.npy` files, and all names.

    The arrays of a folder are memory-mapped.

    Args:
        path: the file or folder.
        names: names of the arrays to read; other arrays are left out.

    Raises:
        InputError: the file is not readable, or an array holds objects.
    """
    path = expanded(path)
    rule, fix = "be an .npz file or a folder of .npy files", "Write one with `numpy.savez`."
    with parsing(path, rule, fix, Exception):  # NumPy and zipfile raise many kinds
        if path.is_dir():
            files = {file.stem: file for file in path.glob("*.npy")}
            mapped = {n: np.load(files[n], mmap_mode="r") for n in names if n in files}
            return mapped, sorted(files)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {n: held[n] for n in names if n in held.files}, sorted(held.files)


def read_matlab(file: StrPath, keys: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of a MATLAB file; those in structures are named `structure/field`.

    SciPy can crash on malformed files, so it runs in a subprocess limited to 8 GiB and two minutes.

    Args:
        file: `.mat` file of version 7 or older.
        keys: required names.

    Raises:
        InputError: the file is not readable, or one of `keys` is missing.
    """
    path = expanded(file)
    code = "from keras_reid.io.arrays import write_matlab; write_matlab()"
    command = [sys.executable, "-P", "-c", code, str(path)]
    fix = "Download it again."
    with parsing(path, "be a MATLAB file of version 7 or older", fix, Exception):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            done = subprocess.run(
                command, check=False, env=environment, capture_output=True, timeout=MATLAB_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"no result in {MATLAB_SECONDS} s") from error
        if done.returncode:
            raise ValueError(["crash", *done.stderr.decode(errors="replace").splitlines()][-1])
        with np.load(BytesIO(done.stdout)) as held:
            values = dict(held)
    if missing := [key for key in keys if key not in values]:
        raise invalid_file(path, f"contain {', '.join(keys)}", f"no {missing[0]}", fix)
    return values


def write_matlab() -> None:
    """Write the arrays of the MATLAB file `sys.argv[1]` to stdout, as `numpy.savez` does."""
    from scipy.io import loadmat

    with suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MATLAB_BYTES, MATLAB_BYTES))
    arrays: dict[str, Any] = {}

    def add(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if hasattr(value, "_fieldnames"):
                add(vars(value), f"{prefix}{name}/")
            elif not name.startswith("_"):
                array = np.asarray(value)
                arrays[prefix + name] = array.astype(str) if array.dtype.hasobject else array

    add(loadmat(sys.argv[1], squeeze_me=True, struct_as_record=False), "")
    np.savez(sys.stdout.buffer, **arrays)


def matlab_indices(values: np.ndarray, count: int, name: str) -> np.ndarray:
    """Return positions from 1 to `count` of a MATLAB array as positions from 0, in one row."""
    numbers = np.ravel(values)
    if not np.isin(numbers, np.arange(1, count + 1)).all():
        rule = f"be whole numbers from 1 to {count:,}"
        raise invalid_file(name, rule, "others", "Download it again.")
    return numbers.astype(np.int64) - 1
