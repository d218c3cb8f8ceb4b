"""Pretrained embedders of the package.

Each is a folder of `weights/` with `model.keras` in float16, its description `card.json`, and
`onnx`, an export of the same weights for runtimes without TensorFlow. `tools/pretrained.py` creates
them from runs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.io import read_json, read_model

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent / "weights"
PREFIX = "pretrained:"  # prefix of the names of their backbones


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a pretrained embedder.

    Attributes:
        name: name of the model.
        image_size: (height, width) in pixels that the network sees; images of any size are resized.
        embedding_dim: d.
        flip: commands embed the mirrored image, too.
        trained_on: training images: data set, number of images and of persons.
        command: command that trained the model.
        license: permitted use.
        scored: difference between this model and the model that `scores` and `thresholds` describe.
            That model was trained on fewer identities; the remaining identities tested it.
        scores: rank-1, mAP and more, by data set.
        thresholds: distances of unit embeddings by decision, such as `"1:1 at FAR 0.01"`, with the
            fields of `keras_reid.evaluation.Threshold`.
        calibration: fields of `keras_reid.evaluation.MatchCalibration`.
        recorded: first components of the embedding of an image that a test draws.
        sha256: SHA-256 of the file.

    Example:
        >>> card = PRETRAINED["person-mobilenetv2"]
        >>> card.image_size, card.embedding_dim
        ((192, 96), 1280)
    """

    name: str
    image_size: tuple[int, int]
    embedding_dim: int
    flip: bool
    trained_on: str
    command: str
    license: str
    scored: str
    scores: Mapping[str, Mapping[str, Any]]
    thresholds: Mapping[str, Mapping[str, Any]]
    calibration: Mapping[str, Any]
    recorded: Sequence[float]
    sha256: str

    @property
    def file(self) -> Path:
        """Path of the model."""
        return FOLDER / self.name / "model.keras"

    @property
    def conversion(self) -> Path:
        """Folder of the ONNX export."""
        return FOLDER / self.name / "onnx"

    @classmethod
    def read(cls, folder: Path) -> "ModelCard":
        """Read the card of a folder."""
        values = read_json(folder / "card.json", {}, "Install keras_reid again.")
        height, width = values.pop("image_size")
        return cls(name=folder.name, image_size=(height, width), **values)


PRETRAINED: dict[str, ModelCard] = {
    card.parent.name: ModelCard.read(card.parent) for card in sorted(FOLDER.glob("*/card.json"))
}


def pretrained(name: str = "person-mobilenetv2") -> "keras.Model":
    """Load a pretrained embedder: uint8 images `(b, h, w, 3)` → `features`, `embedding` `(b, d)`.

    The file is part of the package, so that no download is necessary. `PRETRAINED[name]` has the
    training data, the scores and the license. `keras_reid.inference.load(name)` embeds files and
    data sets with the model.

    Args:
        name: name in `PRETRAINED`.

    Returns:
        Keras model with the outputs `features` and `embedding`.

    Raises:
        InputError: an unknown name, or a missing or changed file.
    """
    checks.one_of(PRETRAINED, name=name)
    card = PRETRAINED[name]
    digest = hashlib.sha256(card.file.read_bytes()).hexdigest() if card.file.is_file() else "none"
    if digest != card.sha256:
        raise InputError(
            f"The weights of {name} must have the SHA-256 {card.sha256[:12]}…, but {card.file} has "
            f"{digest[:12]}. Install keras_reid again."
        )
    return read_model(card.file)


def backbone(name: str) -> "keras.Model":
    """Return the backbone of a pretrained model: float pixels 0..255 `(b, h, w, 3)` → a map.

    Raises:
        InputError: as `pretrained`.
    """
    import keras

    model = pretrained(name)
    (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return network
