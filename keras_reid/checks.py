"""Checks of arguments with one wording: the rule, what was received, the remedy."""

import importlib
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_reid.errors import InputError


def one_of(known: Iterable[str], hint: str = "choose one of these", **words: Any) -> None:
    """Refuses a word that is not known.

    Args:
        known: the words.
        hint: the remedy.
        words: the arguments by name.

    Raises:
        InputError: "NAME is one of A, B: received 'C'; choose one of these".
    """
    known = list(known)
    for name, word in words.items():
        if word not in known:
            raise _refusal(name, f"one of {', '.join(map(str, known))}", word, hint)


def at_least(least: float, hint: str = "give a larger one", **numbers: Any) -> None:
    """Refuses a number below `least`, NaN and infinity; see `one_of`."""
    for name, number in numbers.items():
        if not least <= number < math.inf:
            raise _refusal(name, f"at least {least:g}", number, hint)


def above(bound: float, hint: str = "give a larger one", **numbers: Any) -> None:
    """Refuses a number that is not above `bound`, NaN and infinity; see `one_of`."""
    for name, number in numbers.items():
        if not bound < number < math.inf:
            raise _refusal(name, f"above {bound:g}", number, hint)


def within(interval: str, hint: str = "give a number between these", **numbers: Any) -> None:
    """Refuses a number outside of an interval such as `"[0, 1)"`, and NaN; see `one_of`."""
    low, high = map(float, interval[1:-1].split(","))
    for name, number in numbers.items():
        from_low = low <= number if interval[0] == "[" else low < number
        to_high = number <= high if interval[-1] == "]" else number < high
        if not (from_low and to_high):
            raise _refusal(name, f"in {interval}", number, hint)


def whole(least: int, hint: str = "give a larger one", **numbers: Any) -> None:
    """Refuses what is not a whole number of at least `least`; see `one_of`."""
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < least:
            raise _refusal(name, f"a whole number of at least {least}", number, hint)


def pixels(images: Any, name: str = "images") -> np.ndarray:
    """Return images as uint8; refuse values that uint8 does not hold.

    Args:
        images: array of any shape, uint8 or of another numeric type with integers from 0 to 255.
        name: of the argument.

    Raises:
        InputError: other values, such as floats from 0 to 1, or no array of numbers.
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iufV" and array.dtype.names is None:  # V: bfloat16
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.uint8)
        if (whole == array).all():
            return whole
        received = f"{array.dtype} from {float(array.min()):g} to {float(array.max()):g}"
    else:
        received = str(array.dtype)
    raise InputError(
        f"`{name}` must be uint8, or hold integers from 0 to 255, got {received}. Convert pixels "
        f"from 0 to 1 with `np.round(255 * {name}).astype(np.uint8)`."
    )


def int64(labels: np.ndarray, name: str) -> np.ndarray:
    """Return integers as int64; refuse unsigned ones beyond it, which would become negative."""
    if labels.dtype == np.uint64 and (labels > np.iinfo(np.int64).max).any():
        raise InputError(
            f"`{name}` must be below 2**63, got {labels.max()}. Convert the labels to text."
        )
    return labels.astype(np.int64)


def address(**texts: str) -> None:
    """Refuses what is no `grpc://HOST:PORT`; see `one_of`."""
    for name, text in texts.items():
        if not re.fullmatch(r"grpc://[^:/]+:\d+", text):
            raise _refusal(name, "an address grpc://HOST:PORT", text, "name the dispatcher")


def _refusal(name: str, rule: str, received: Any, hint: str) -> InputError:
    return InputError(f"{name} is {rule}: received {received!r}; {hint}", name)


def installed(module: str, extra: str) -> Any:
    """Return the imported module of an optional package.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"this needs {module.partition('.')[0]}: run pip install '.[{extra}]' in the checkout"
        ) from error
