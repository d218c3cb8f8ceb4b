"""Reading of a run folder: flags, models and scores."""

import itertools
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid import checks, models
from keras_reid.errors import InputError
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.inference.metadata import digest_of
from keras_reid.io import Fields, read_json, read_model
from keras_reid.names import StrPath, expanded

if TYPE_CHECKING:
    import keras

# Flags of runs that were made by earlier versions.
RENAMED = {
    "all_parts": "combine_all",
    "distance": "metric_distance",
    "ema": "ema_momentum",
    "embedding_width": "embedding_dim",
    "freeze": "freeze_epochs",
    "identities": "num_identities_per_batch",
    "induction": "induction_epochs",
    "instances": "num_instances",
    "new_rate": "head_lr_multiplier",
    "own_views": "per_member_augmentation",
    "pretrain": "pretrain_epochs",
    "refinement": "refinement_epochs",
    "smoothing": "label_smoothing",
    "spread": "camera_balanced",
    "start": "init_from",
}
RETRAIN = "Restore it, or train again."
NEEDED = ("dataset", "data_dir", "flip")
# Types of the flags that are read. Older versions did not write all of them.
FLAGS: Fields = {
    "dataset": str,
    "data_dir": str | None,
    "leave_out": list | None,
    "protocol": str | None,
    "recipe": str,
    "seed": int,
    "keypoints": str | None,
    "attribute_names": list | None,
    "flip": bool,
    "frames": int,
}


class TrainedRun:
    """Run folder: `flags.json`, `model.keras` and `metrics.json`; `training.Run` writes it.

    After mutual learning, `model.keras` is the first member and `model-2.keras`, `model-3.keras`, …
    are the others; `metrics.json` has the scores of each under `members`.
    """

    def __init__(self, directory: StrPath) -> None:
        self.directory = expanded(directory)
        self.flags_file = self.directory / "flags.json"
        self.model_file = self.directory / "model.keras"
        self.metrics_file = self.directory / "metrics.json"

    @property
    def flags(self) -> dict[str, Any]:
        """Flags of the training command."""
        flags = read_json(self.flags_file, FLAGS, RETRAIN)
        if flags.pop("soft_margin", False):
            flags["margin"] = "soft"
        return {RENAMED.get(name, name): value for name, value in flags.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """Flags of the training command; raise if a required one is missing."""
        flags = self.flags
        if missing := [name for name in NEEDED if name not in flags]:
            raise InputError(f"{self.flags_file} has no {missing[0]}. {RETRAIN}")
        return flags

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores of the run; empty if it is unfinished."""
        if not self.metrics_file.exists():
            return {}
        return read_json(self.metrics_file, {"members": dict, "calibration": dict}, RETRAIN)

    def calibration(self, member: str = "1") -> MatchCalibration | None:
        """Return the calibration of match probabilities; None if the run has none.

        Args:
            member: as in `load_model`.
        """
        calibrations = self.metrics.get("calibration", {})
        values = calibrations.get(self._best() if member == "best" else member)
        return None if values is None else MatchCalibration.of(values, self.metrics_file)

    def member_file(self, number: int) -> Path:
        """Return the file of the model of member 1, 2, …."""
        return self.model_file if number == 1 else self.directory / f"model-{number}.keras"

    def load_model(self, member: str = "1") -> "keras.Model":
        """Return a trained model.

        Args:
            member: the number of a member; `"best"`, the one with the highest mAP in `metrics`; or
                `"ensemble"`, all of them, see `keras_reid.models.ensemble`.
        """
        members = [read_model(file) for file in self.files(member)]
        return members[0] if len(members) == 1 else models.ensemble(members)

    def files(self, member: str = "1") -> list[Path]:
        """Return the files of a member: one file, or all files of the ensemble.

        Args:
            member: as in `load_model`.

        Raises:
            InputError: an unknown member.
        """
        numbers = itertools.takewhile(lambda n: self.member_file(n).is_file(), itertools.count(1))
        members = [*map(str, numbers)] or ["1"]  # reading it raises the error of a missing file
        if member == "ensemble" and len(members) > 1:
            return [self.member_file(int(number)) for number in members]
        best = self._best()
        number = best if member == "best" and best else member
        words = ["best"] * bool(best) + ["ensemble"] if len(members) > 1 else []
        checks.one_of((*members, *words), f"{self.directory} has these.", member=number)
        return [self.member_file(int(number))]

    @property
    def conversions(self) -> Path:
        """Folder of the ONNX exports of this run, `VERSION` for each member."""
        return self.directory / "onnx"

    def state(self, member: str = "1") -> dict[str, Any]:
        """Return the facts that a conversion depends on: digests of the model files, and `flip`."""
        digests = {file.name: digest_of(file) for file in self.files(member) if file.is_file()}
        return {"files": digests, "flip": bool(self.settings["flip"])}

    def _best(self) -> str | None:
        """Return the member with the highest mAP; None if the run has no scores."""
        members = {k: v for k, v in self.metrics.get("members", {}).items() if k.isdecimal()}
        with suppress(KeyError, TypeError, ValueError):
            return max(members, key=lambda number: float(members[number]["mAP"]))
        return None
