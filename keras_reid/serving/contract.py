"""What an export promises: `export.json` beside the model."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_reid import models
from keras_reid.errors import InputError

FILE = "export.json"
PIXELS = (
    "uint8 RGB; resized bilinearly to image_size, with antialiasing where it shrinks, and rounded; "
    "normalisation is inside the model"
)


@dataclass(frozen=True)
class Contract:
    """What a user of an exported embedder has to know.

    Attributes:
        format: saved_model, onnx, litert or openvino.
        precision: float32, float16 or int8.
        image_size: (height, width) that the network sees.
        embedding_width: d.
        flip: whether the mirror image was added.
        local: (stripes, width) of the second output, or None.
        fingerprint: of weights and preprocessing, see `fingerprint`.
        about: what is known of the training: data set, scores with their protocol.
        pixels: how an image becomes the input.
        distance: how embeddings are compared.
        files: bytes of each file of the model, by name: some programs crash on a shorter one.
    """

    format: str
    precision: str
    image_size: tuple[int, int]
    embedding_width: int
    flip: bool
    local: tuple[int, int] | None
    fingerprint: str
    about: dict[str, Any] = field(default_factory=dict)
    pixels: str = PIXELS
    distance: str = "|x − y| of embeddings of length 1"
    files: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes it into the folder of an export."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Contract | None":
        """None where there is none, as in an export of another program."""
        try:
            text = (folder / FILE).read_text()
        except OSError:
            return None
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"an export is described by {FILE}: that in {folder} is broken ({error}); export "
                "the model again"
            ) from error


def fingerprint(model: keras.Model, flip: bool = False, precision: str = "float32") -> str:
    """16 hexadecimal digits of the embedder: its weights, image size, mirroring and precision.

    Two models have the same one if they give the same embeddings up to rounding: a run and its
    float32 exports have. A gallery refuses embeddings of another.
    """
    net = models.outputs_at_test(model)
    size = models.image_size(model)
    digest = hashlib.sha256(repr((size, bool(flip), precision, PIXELS)).encode())
    for variable in net.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), np.float32)
        digest.update(repr(value.shape).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]
