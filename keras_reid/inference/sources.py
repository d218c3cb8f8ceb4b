"""Sources of embedders: runs, exports, model files and pretrained models, not yet loaded."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid.errors import Shown, invalid
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.inference.metadata import FILE, Metadata
from keras_reid.inference.runs import TrainedRun
from keras_reid.io import read_model
from keras_reid.models.shipped import PRETRAINED, ModelCard, pretrained
from keras_reid.names import StrPath, expanded

if TYPE_CHECKING:
    import keras

DEFAULT = "pretrained"
NETWORKS = (".onnx", ".xml", ".tflite")
KINDS = (
    f"a run folder, an export/NAME/VERSION folder, a file (.keras, {', '.join(NETWORKS)}), or a "
    f"name ({', '.join((DEFAULT, *PRETRAINED))})"
)


@dataclass(frozen=True)
class Source:
    """Source of an embedder that is not yet loaded.

    Attributes:
        kind: "pretrained", "run", "keras" (a file), "export", "network" (a file) or "memory".
        name: name of the model, or its path, for messages.
    """

    kind: str
    name: str

    @classmethod
    def of(cls, source: StrPath) -> "Source":
        """Return the source with this path or name.

        Raises:
            InputError: neither a path of a model nor the name of a pretrained one.
        """
        name = os.fspath(source)
        if name == DEFAULT:
            name = next(iter(PRETRAINED))
        if name in PRETRAINED:
            return cls("pretrained", name)
        path = expanded(name)
        if path.is_dir():
            return cls(_kind_of_folder(path), str(path))
        if not path.is_file() or path.suffix not in (".keras", *NETWORKS):
            received = path if path.is_file() else f"{path}, which does not exist"
            raise invalid("model", KINDS, Shown(received))
        if path.suffix == ".keras":
            return cls("keras", str(path))
        if (path.parent / FILE).is_file():
            return cls("export", str(path.parent))
        return cls("network", str(path))

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.name)

    @property
    def is_keras(self) -> bool:
        """True if `load_model` returns a Keras model."""
        return self.kind in ("pretrained", "run", "keras")

    @property
    def run(self) -> TrainedRun | None:
        """The run folder; None for other sources."""
        return TrainedRun(self.path) if self.kind == "run" else None

    @property
    def pretrained(self) -> ModelCard | None:
        """The card of a pretrained model; None for other sources."""
        return PRETRAINED[self.name] if self.kind == "pretrained" else None

    @property
    def metadata(self) -> Metadata | None:
        """The metadata of an export; None for other sources."""
        return Metadata.read(self.path) if self.kind == "export" else None

    def conversion(self, member: str = "1") -> Path | None:
        """Return the folder of an ONNX export with the same embeddings; None if there is none.

        Args:
            member: member of a run; see `TrainedRun.load_model`.
        """
        if self.pretrained is not None:
            folder = self.pretrained.conversion
            return folder if member == "1" and (folder / FILE).is_file() else None
        if self.run is None or not self.run.conversions.is_dir():
            return None
        state = self.run.state(member)
        for folder in sorted(self.run.conversions.iterdir()):
            if (folder / FILE).is_file() and Metadata.read(folder).about.get("state") == state:
                return folder
        return None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Training settings of a run; only `flip` for other Keras models; else empty."""
        if self.run is not None:
            return self.run.settings
        if self.pretrained is not None:
            return {"flip": self.pretrained.flip}
        return {"flip": False} if self.is_keras else {}

    def calibration(self, member: str = "1") -> MatchCalibration | None:
        """Return the calibration of match probabilities; None if the source has none.

        Args:
            member: member of a run; see `TrainedRun.load_model`.
        """
        if self.run is not None:
            return self.run.calibration(member)
        if self.pretrained is not None:
            return MatchCalibration.of(self.pretrained.calibration, self.path)
        values = None if self.metadata is None else self.metadata.about.get("calibration")
        return None if values is None else MatchCalibration.of(values, self.path)

    def load_model(self, member: str = "1") -> "keras.Model":
        """Return the Keras model.

        Args:
            member: member of a run; see `TrainedRun.load_model`.

        Raises:
            InputError: a broken file, an unknown member, or a source without a Keras model.
        """
        if self.run is not None:
            return self.run.load_model(member)
        if member != "1":
            raise invalid("member", "1", member, "Only runs have several members.")
        if self.kind == "pretrained":
            return pretrained(self.name)
        if self.kind == "keras":
            return read_model(self.path)
        rule = "a run folder, a .keras file or a pretrained model in this place"
        raise invalid("model", rule, Shown(self))


def _kind_of_folder(path: Path) -> str:
    if (path / FILE).is_file():
        return "export"
    if (path / "flags.json").is_file():
        return "run"
    versions = [int(entry.name) for entry in path.iterdir() if entry.name.isdecimal()]
    fix = f"Choose a version, {path / str(max(versions))}." if versions else "Check the path."
    rule = f"a folder with flags.json (a run) or {FILE} (an export)"
    raise invalid("model", rule, Shown(path), fix)
