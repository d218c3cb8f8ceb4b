"""Options of the network file of an embedder: its runtime, and the input that it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from keras_reid.cli.options import option
from keras_reid.errors import Shown, invalid
from keras_reid.inference.preprocessing import LAYOUTS, ORDERS

NUMBERS = ("input_size", "scale", "mean")  # flags of several numbers


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Runtime and input of a network file."""

    topic: ClassVar[str] = "model"

    runtime: str = option(
        "Runtime of the model; auto: ONNX Runtime for .onnx, runs and pretrained models (Keras if "
        "it is not installed), OpenVINO for .xml, LiteRT for .tflite.",
        "auto",
        choices=("auto", "keras", "saved_model", "onnx", "openvino", "litert"),
    )
    input_size: Sequence[str] | None = option(
        "Height and width of a network's input in pixels, such as 256,128. Like --channel_order, "
        "--scale, --mean and --layout, only for .onnx, .xml and .tflite files that do not state it."
    )
    channel_order: str | None = option("Channel order of a network's input.", choices=ORDERS)
    scale: Sequence[str] | None = option(
        "Divisor of the pixels, 1 or 3 numbers: the input is (pixel - mean) / scale."
    )
    mean: Sequence[str] | None = option("Mean of the pixels, 1 or 3 gray levels; see --scale.")
    layout: str | None = option(
        "Axes of a network's input: batch n, channels c, height h, width w.", choices=LAYOUTS
    )

    @cached_property
    def network(self) -> dict[str, Any]:
        """Arguments of `inference.load` for a network file."""
        numbers = {name: _numbers(name, getattr(self, name)) for name in NUMBERS}
        words = {"channel_order": self.channel_order, "layout": self.layout}
        return {"runtime": self.runtime, **numbers, **words}


def _numbers(name: str, texts: Sequence[str] | None) -> list[float] | None:
    try:
        return None if texts is None else [float(text) for text in texts]
    except ValueError:
        raise invalid(name, "numbers", Shown(",".join(texts or ()))) from None
