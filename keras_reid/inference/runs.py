"""The part of a run folder that a trained model is used by: flags, models and scores."""

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid import models
from keras_reid.errors import InputError
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.io import NUMBER, Fields, read_json, read_model
from keras_reid.names import expanded

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
    "protocol": str | None,
    "recipe": str,
    "seed": int,
    "keypoints": str | None,
    "attribute_names": list | None,
    "flip": bool,
    "frames": int,
}


class TrainedRun:
    """A folder with `flags.json`, `model.keras` and `metrics.json`; `training.Run` writes it.

    Where several models learned from each other, `model.keras` is the first and `model-2.keras`,
    `model-3.keras`, … are the others; `metrics.json` has the scores of each under `members`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = expanded(directory)
        self.flags_file = self.directory / "flags.json"
        self.model_file = self.directory / "model.keras"
        self.metrics_file = self.directory / "metrics.json"

    @property
    def flags(self) -> dict[str, Any]:
        """Flags of the training command."""
        if not self.flags_file.exists():
            raise InputError(
                f"a run folder holds {self.flags_file.name}: {str(self.directory)!r} does not; "
                "make a run with train.py"
            )
        flags = read_json(self.flags_file, FLAGS, RETRAIN)
        if flags.pop("soft_margin", False):
            flags["margin"] = "soft"
        return {RENAMED.get(name, name): value for name, value in flags.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """The flags; raise if a required one is missing."""
        flags = self.flags
        missing = [name for name in NEEDED if name not in flags]
        if missing:
            raise InputError(
                f"`{self.flags_file}` must contain {', '.join(NEEDED)}, got no {missing[0]}. "
                f"{RETRAIN}"
            )
        return flags

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores of the run; empty if it is unfinished."""
        if not self.metrics_file.exists():
            return {}
        metrics = read_json(self.metrics_file, {"members": dict, "calibration": dict}, RETRAIN)
        for name, scores in metrics.get("members", {}).items():
            if not isinstance(scores, dict) or not isinstance(scores.get("mAP"), NUMBER):
                raise InputError(
                    f"`{self.metrics_file}` must have mAP of each member, got none of {name!r}. "
                    f"{RETRAIN}"
                )
        return metrics

    def calibration(self, member: str = "1") -> MatchCalibration | None:
        """Return the calibration of match probabilities; None if no persons were left for it.

        Args:
            member: as in `load_model`.
        """
        known = self.metrics.get("calibration", {})
        values = known.get(self._best() if member == "best" else member)
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
        if not self.model_file.is_file():
            raise InputError(
                f"a finished run folder holds model.keras: {str(self.directory)!r} does not; "
                "train a model first, or name another folder"
            )
        numbers = itertools.takewhile(lambda n: self.member_file(n).is_file(), itertools.count(1))
        known = [*map(str, numbers)]
        if member == "ensemble" and len(known) > 1:
            return models.ensemble([self._load(number) for number in known])
        if member == "best":
            member = self._best()
        if member not in known:
            raise InputError(
                f"the run {str(self.directory)!r} has the members {', '.join(known)}: received "
                f"{member!r}; give a number, best, or of several members ensemble"
            )
        return self._load(member)

    def _load(self, number: str) -> "keras.Model":
        return read_model(self.member_file(int(number)))

    def _best(self) -> str:
        scores = {k: v["mAP"] for k, v in self.metrics.get("members", {}).items() if k.isdecimal()}
        if not scores:
            raise InputError(
                f"the best member is the one with the highest mAP: metrics.json in "
                f"{str(self.directory)!r} has no scores of members; give a number"
            )
        return max(scores, key=scores.__getitem__)
