"""Trained embedders that come with the package.

Each is a folder of `weights/`: `model.keras`, whose weights are float16, and `card.json`, which
says what it is. `tools/pretrained.py` makes them from runs.
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
PREFIX = "pretrained:"  # of the names of backbones that are taken out of these models


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What is known of a trained embedder.

    Attributes:
        name: of the model.
        image_size: (height, width) in pixels that the network sees; images of any size are resized.
        embedding_dim: d.
        flip: whether the mirror image is embedded, too, when it is used by the commands.
        trained_on: which images, how many of how many persons.
        command: by which it was trained.
        license: what it may be used for.
        scored: how the model of `scores` and `thresholds` differs from this one: it was trained on
            fewer identities, so that some were left to score it.
        scores: rank-1, mAP and more, by what was scored.
        thresholds: distances of unit embeddings, by what is decided: `"1:1 at FAR 0.01"`, each as
            `keras_reid.evaluation.Threshold` has them.
        calibration: of match probabilities, values of `keras_reid.evaluation.MatchCalibration`.
        recorded: the first components of the embedding of an image that a test draws.
        sha256: of the file.
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
        """The model."""
        return FOLDER / self.name / "model.keras"

    @classmethod
    def read(cls, folder: Path) -> "Pretrained":
        """What the card in a folder says."""
        values = read_json(folder / "card.json", {}, "Install keras_reid again.")
        height, width = values.pop("image_size")
        return cls(name=folder.name, image_size=(height, width), **values)


PRETRAINED: dict[str, Pretrained] = {
    card.parent.name: Pretrained.read(card.parent) for card in sorted(FOLDER.glob("*/card.json"))
}


def pretrained(name: str = "person-mobilenetv2") -> "keras.Model":
    """A trained embedder: uint8 images `(b, h, w, 3)` → `features` and `embedding` `(b, d)`.

    No network is needed. `PRETRAINED[name]` says what it was trained on, how well it does, and what
    it may be used for; `keras_reid.inference.load(name)` embeds files and whole data sets with it.

    Args:
        name: of `PRETRAINED`.

    Raises:
        InputError: an unknown name, or a file that is not the one that was shipped.
    """
    checks.one_of(PRETRAINED, name=name)
    known = PRETRAINED[name]
    found = hashlib.sha256(known.file.read_bytes()).hexdigest() if known.file.is_file() else "none"
    if found != known.sha256:
        raise InputError(
            f"the weights of {name} have the SHA-256 {known.sha256[:12]}…: {known.file} has "
            f"{found[:12]}; install keras_reid again"
        )
    return read_model(known.file)


def backbone(name: str) -> "keras.Model":
    """The backbone of such a model: float pixels 0..255 `(b, h, w, 3)` → a feature map.

    Raises:
        InputError: as `pretrained`.
    """
    import keras

    model = pretrained(name)
    (found,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return found
