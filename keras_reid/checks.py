"""Checks of arguments, with the messages of `keras_reid.errors.invalid`."""

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from keras_reid.errors import InputError, Shown, invalid


def one_of(choices: Iterable[Any], fix: str = "", **values: Any) -> None:
    """Raise unless every value is among the choices.

    Args:
        choices: allowed values.
        fix: sentence that is added to the message.
        values: arguments by name.

    Raises:
        InputError: "`NAME` must be one of A, B, got 'C'. FIX".

    Example:
        >>> one_of(("fill", "drop"), last="fill")
        >>> one_of(("fill", "drop"), last="keep")
        Traceback (most recent call last):
        keras_reid.errors.InputError: `last` must be one of fill, drop, got 'keep'.
    """
    choices = list(choices)
    _require(f"one of {', '.join(map(str, choices))}", choices.__contains__, fix, values)


def at_least(least: float, fix: str = "", **numbers: Any) -> None:
    """Raise for a number below `least`, for NaN and for infinity; see `one_of`."""
    _require(f"at least {least:g}", lambda number: least <= number < math.inf, fix, numbers)


def above(bound: float, fix: str = "", **numbers: Any) -> None:
    """Raise for a number that is not above `bound`, for NaN and for infinity; see `one_of`."""
    rule = "positive" if bound == 0 else f"above {bound:g}"
    _require(rule, lambda number: bound < number < math.inf, fix, numbers)


def within(interval: str, fix: str = "", **numbers: Any) -> None:
    """Raise for NaN and for a number outside an interval such as `"[0, 1)"`; see `one_of`."""
    low, high = map(float, interval[1:-1].split(","))

    def contains(number: Any) -> bool:
        from_low = low <= number if interval[0] == "[" else low < number
        return bool(from_low and (number <= high if interval[-1] == "]" else number < high))

    _require(f"in {interval}", contains, fix, numbers)


def whole(least: int, fix: str = "", **numbers: Any) -> None:
    """Raise unless every number is an integer of at least `least`; see `one_of`."""

    def valid(number: Any) -> bool:
        return isinstance(number, int | np.integer) and bool(number >= least)

    _require(f"an integer of at least {least}", valid, fix, numbers)


def shapes(fix: str = "", **arrays: tuple[str, Iterable[int | None]]) -> None:
    """Raise unless every array has its shape, such as `(n, 4)`; see `one_of`.

    Args:
        fix: sentence that is added to the message.
        arrays: expected and received shape by argument. Equal letters are equal sizes; `…` at one
            end allows further axes there. None, an unknown size in a graph, always fits.

    Example:
        >>> shapes(x=("(n, d)", (3, 4)), y=("(m, d)", (2, 4)))
        >>> shapes(x=("(n, d)", (3, 4)), y=("(m, d)", (2, 5)))
        Traceback (most recent call last):
        keras_reid.errors.InputError: `y` must be of shape (m, 4), got (2, 5).
    """
    sizes: dict[str, str] = {}
    for name, (pattern, shape) in arrays.items():
        rule = re.sub(r"\w+", lambda axis: sizes.get(axis[0], axis[0]), pattern)
        axes, received = re.findall(r"\w+", rule), tuple(shape)
        compared = received[-len(axes) :] if "(…" in rule else received[: len(axes)]
        fits = len(compared) == len(axes) and ("…" in rule or len(axes) == len(received))
        for axis, size in zip(axes, map(str, compared), strict=False):
            if size != "None":
                fits &= size == (axis if axis.isdecimal() else sizes.setdefault(axis, size))
        if not fits:
            raise invalid(name, f"of shape {rule}", received, fix)


def margin(soft: bool = True, **margins: Any) -> None:
    """Raise for a margin that is neither a finite number of at least 0 nor "soft"; see `one_of`.

    Args:
        soft: whether "soft", for softplus, is allowed.
        margins: numbers, or "soft", by argument.
    """

    def valid(value: Any) -> bool:
        if isinstance(value, str | None):
            return soft and value == "soft"
        return bool(0 <= value < math.inf)

    _require("a number of at least 0" + soft * ' or "soft"', valid, "0.3 is usual.", margins)


def _require(rule: str, valid: Callable[[Any], bool], fix: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not valid(value):
            raise invalid(name, rule, value, fix)


def pixels(images: Any, name: str = "images") -> np.ndarray:
    """Return images as uint8; raise for values that uint8 does not hold.

    Args:
        images: array of any shape, uint8 or of another numeric type with integers from 0 to 255.
        name: name of the argument.

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
    raise invalid(
        name,
        "uint8, or hold integers from 0 to 255",
        Shown(received),
        f"Convert pixels from 0 to 1 with `np.round(255 * {name}).astype(np.uint8)`.",
    )


def int64(labels: np.ndarray, name: str) -> np.ndarray:
    """Return integers as int64; raise for unsigned ones that do not fit into it.

    Args:
        labels: (n,) integers.
        name: name of the argument.
    """
    if labels.dtype == np.uint64 and (labels > np.iinfo(np.int64).max).any():
        raise invalid(name, "below 2**63", int(labels.max()), "Convert the labels to text.")
    return labels.astype(np.int64)


def address(**texts: str) -> None:
    """Raise unless every text is `grpc://HOST:PORT`; see `one_of`."""
    for name, text in texts.items():
        if not re.fullmatch(r"grpc://[^:/]+:\d+", text):
            raise invalid(name, "the address grpc://HOST:PORT of the dispatcher", text)


def installed(module: str, extra: str) -> Any:
    """Return the imported module of an optional package.

    Args:
        module: its name.
        extra: extra of this project that installs it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module.partition('.')[0]} is not installed. Run pip install '.[{extra}]' in the "
            "checkout."
        ) from error
