"""Arrays of MATLAB files."""

from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from keras_reid.errors import InputError


def matlab(file: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file by name.

    Raises:
        InputError: the file is none, or lacks one of `keys`.
    """
    try:
        values = loadmat(file)
    except (MatReadError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{file} must be a MATLAB file of version 7 or older, but reading it gave "
            f"'{error}': download it again"
        ) from error
    missing = [key for key in keys if key not in values]
    if missing:
        raise InputError(
            f"{file} must hold {', '.join(keys)}, but {missing[0]} is missing: download it again"
        )
    return values
