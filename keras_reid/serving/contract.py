"""What an export promises: `export.json` beside the model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_reid import models
from keras_reid.errors import InputError
from keras_reid.io import Fields, read_json

FILE = "export.json"
AGAIN = "Export the model again."
FIELDS: Fields = {
    "format": str,
    "precision": str,
    "image_size": list,
    "embedding_width": int,
    "flip": bool,
    "local": list | None,
    "fingerprint": str,
    "about": dict,
    "pixels": str,
    "distance": str,
    "files": dict,
}
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
        files: SHA-256 of each file of the model, by its path in the folder.
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
    files: Mapping[str, str | int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes it into the folder of an export."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Contract | None":
        """None where there is none, as in an export of another program."""
        if not (folder / FILE).exists():
            return None
        values = read_json(folder / FILE, FIELDS, AGAIN)
        for name, length in (("image_size", 2), ("local", 2)):
            numbers = values.get(name)
            if numbers is not None and not _counts(numbers, length):
                raise InputError(
                    f"`{name}` in `{folder / FILE}` must be {length} whole numbers from 1, got "
                    f"{numbers!r}. {AGAIN}"
                )
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(
                f"`{folder / FILE}` must describe an export, got '{error}'. {AGAIN}"
            ) from error

    def check(self, folder: Path) -> None:
        """Refuses files that are not those that were exported: a flipped bit, a cut-off copy.

        Raises:
            InputError: which one it is.
        """
        for name, expected in self.files.items():
            file = folder / name
            # Earlier versions kept the bytes of each file.
            found = digest_of if isinstance(expected, str) else lambda file: file.stat().st_size
            if not file.is_file() or found(file) != expected:
                raise InputError(
                    f"an export is as it was written: {file} is missing or has changed; copy it "
                    "again, or export the model again"
                )


def _counts(values: Any, length: int) -> bool:
    whole = all(isinstance(value, int) and 1 <= value < 2**31 for value in values)
    return whole and len(values) == length


def digest_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
