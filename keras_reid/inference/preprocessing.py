"""Preprocessing from uint8 RGB images to the input of a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid

ORDERS = ("rgb", "bgr")
LAYOUTS = ("nchw", "nhwc")
EXAMPLE = {
    "input_size": "256,128",
    "channel_order": "rgb",
    "scale": "1",
    "mean": "0",
    "layout": "nchw",
}
Shape = Sequence[int | None]  # with the batch; None: any


@dataclass(frozen=True)
class Preprocessing:
    """`(pixels − mean) / scale`, in the channel order and the layout of a network.

    Attributes:
        input_size: (h, w) in pixels.
        channel_order: "rgb" or "bgr".
        scale, mean: gray levels, one for each channel in the order of `channel_order`.
        layout: "nchw" or "nhwc".
        dtype: NumPy type of the input.

    Example:
        >>> half = Preprocessing((2, 1), scale=(2.0,) * 3, layout="nchw", dtype="float32")
        >>> half(np.full((1, 2, 1, 3), 6, np.uint8)).tolist()
        [[[[3.0], [3.0]], [[3.0], [3.0]], [[3.0], [3.0]]]]
    """

    input_size: tuple[int, int]
    channel_order: str = "rgb"
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    layout: str = "nhwc"
    dtype: str = "uint8"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the network's input for uint8 RGB images `(b, h, w, 3)`."""
        values: np.ndarray = images[..., ::-1] if self.channel_order == "bgr" else images
        if set(self.scale) != {1.0} or set(self.mean) != {0.0}:
            values = (values - np.array(self.mean, np.float32)) / np.array(self.scale, np.float32)
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, self.dtype)


def preprocessing_of(
    name: str,
    shape: Shape,
    dtype: str,
    stored: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Preprocessing:
    """Return the preprocessing of a network file.

    Args:
        name: name of the file, for errors.
        shape: shape of the input, with the batch.
        dtype: dtype of the input.
        stored: settings that the file contains.
        settings: `input_size`, `channel_order`, `scale`, `mean` and `layout` of the caller; None:
            not set.

    Raises:
        InputError: settings that neither the file nor the caller gives, or that do not fit.
    """
    values: dict[str, Any] = {}
    if np.dtype(dtype).kind in "iu":  # integers are pixels
        values = {"scale": 1.0, "mean": 0.0}
    values |= stored
    values |= {key: value for key, value in settings.items() if value is not None}
    if layout := _layout(name, shape, values.get("layout")):
        values["layout"] = layout
        size = shape[2:4] if layout == "nchw" else shape[1:3]
        if None not in size or "input_size" in values:
            values["input_size"] = _size(name, size, values.get("input_size", size))
    if missing := {key: text for key, text in EXAMPLE.items() if key not in values}:
        flags = " ".join(f"--{key}={text}" for key, text in missing.items())
        raise InputError(
            f"{name} does not state {', '.join(missing)} of its input. Pass them, for example "
            f"{flags}. The input is (pixel - mean) / scale.",
            next(iter(missing)),
        )
    checks.one_of(ORDERS, channel_order=values["channel_order"])
    values |= {key: _three(key, values[key]) for key in ("scale", "mean")}
    checks.above(0, "It divides the pixels.", scale=min(values["scale"]))
    return Preprocessing(**values, dtype=dtype)


def _layout(name: str, shape: Shape, layout: str | None) -> str | None:
    """Return the layout of images of 3 channels with this shape; None if there are two."""
    axes = {"nchw": 1, "nhwc": 3}
    layouts = [key for key, axis in axes.items() if len(shape) == 4 and shape[axis] in (3, None)]
    if not layouts:
        raise InputError(
            f"{name} must take images of 3 channels, nchw or nhwc, got the shape {_text(shape)}. "
            "Choose another model."
        )
    if layout is not None:
        checks.one_of(layouts, f"{name} has the shape {_text(shape)}.", layout=layout)
        return layout
    sure = [key for key in layouts if shape[axes[key]] == 3] or layouts
    return sure[0] if len(sure) == 1 else None


def _size(name: str, fixed: Shape, size: Sequence[int]) -> tuple[int, int]:
    """Return (h, w), if it fits the shape of the input."""
    fits = len(size) == 2 and all(a in (None, b) for a, b in zip(fixed, size, strict=True))
    if not fits or min(size) < 1:
        rule = _text(fixed) if None not in fixed else "(height, width), both 1 or more,"
        raise invalid("input_size", f"{rule} for {name}", Shown(_text(size)))
    height, width = size
    return height, width


def _three(name: str, values: Any) -> tuple[float, ...]:
    numbers = np.ravel(values).astype(float).tolist()
    fix = "This is the number of gray levels: one, or one for each channel."
    checks.one_of((1, 3), fix, **{name: len(numbers)})
    return tuple(numbers * 3 if len(numbers) == 1 else numbers)


def _text(shape: Shape) -> str:
    return "×".join("any" if size is None else str(size) for size in shape)
