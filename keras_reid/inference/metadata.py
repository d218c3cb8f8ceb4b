"""Metadata of an export: `export.json` next to the model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_reid.errors import InputError
from keras_reid.io import parsing, read_json

FILE = "export.json"
AGAIN = "Export the model again."
# Types of JSON of the attributes with other types.
JSON_TYPES: dict[Any, Any] = {
    tuple[int, int]: list,
    tuple[int, int] | None: list | None,
    dict[str, Any]: dict,
    Mapping[str, str]: dict,
}
# Part of every fingerprint: with another spelling, galleries would be refused.
PIXELS = (
    "uint8 RGB; resized bilinearly to image_size, with antialiasing where it shrinks, and rounded; "
    "normalisation is inside the model"
)


@dataclass(frozen=True)
class Metadata:
    """Description of an exported embedder.

    Attributes:
        format: saved_model, onnx, litert or openvino.
        precision: float32, float16 or int8.
        image_size: (height, width) of the network's input.
        embedding_dim: d.
        flip: True if the embedding of the mirrored image is added.
        local: (stripes, width) of the second output, or None.
        fingerprint: fingerprint of weights and preprocessing, see `fingerprint`.
        about: the training: data set, scores with their protocol.
        pixels: preprocessing from an image to the input.
        distance: distance between embeddings.
        files: SHA-256 of each file of the model, by its path in the folder.
    """

    format: str
    precision: str
    image_size: tuple[int, int]
    embedding_dim: int
    flip: bool
    local: tuple[int, int] | None
    fingerprint: str
    about: dict[str, Any] = field(default_factory=dict)
    pixels: str = PIXELS
    distance: str = "|x − y| of embeddings of length 1"
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `export.json` into the folder of an export."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Metadata":
        """Return the metadata of the folder of an export."""
        types = {one.name: JSON_TYPES.get(one.type, one.type) for one in fields(cls)}
        values = read_json(folder / FILE, types, AGAIN)
        if "embedding_width" in values:  # the name in version 0.2.0
            values["embedding_dim"] = values.pop("embedding_width")
        with parsing(folder / FILE, "describe an export", AGAIN, (TypeError, ValueError)):
            for name in ("image_size", "local"):
                if values.get(name) and not _two(values[name]):
                    raise ValueError(f"{name} {values[name]}")
            return cls(**values)

    def check(self, folder: Path) -> None:
        """Raise unless all files are as exported: no flipped bit, no truncated copy.

        Raises:
            InputError: a missing or changed file.
        """
        for name, expected in self.files.items():
            file = folder / name
            if not file.is_file() or digest_of(file) != expected:
                raise InputError(f"{file} is missing or has changed. Copy it again. {AGAIN}")


def _two(values: list[Any]) -> bool:
    return len(values) == 2 and all(isinstance(x, int) and 1 <= x < 2**31 for x in values)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
