"""Run folder: flags, model, scores and logs of one training run."""

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid.errors import InputError
from keras_reid.inference.runs import RETRAIN, TrainedRun
from keras_reid.io import NUMBER, check_replaceable, locked, read_json_lines, replaced_file

if TYPE_CHECKING:
    import keras

# Names in a run folder.
CONTENTS = ("flags.json", "metrics.json", "history.jsonl", "logs", "model*.keras", "backup-*", ".*")


class Run(TrainedRun):
    """Run folder: `flags.json`, `model.keras`, `metrics.json`, `history.jsonl` and `logs/`.

    After mutual learning, `model.keras` is the first member and `model-2.keras`, `model-3.keras`, …
    are the others; `metrics.json` has the scores of each under `members`.

    An unfinished run has `backup-PHASE.weights.h5` instead of the model.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self.history_file = self.directory / "history.jsonl"
        self.logs = self.directory / "logs"
        self._claim: AbstractContextManager[None] | None = None

    @property
    def finished(self) -> bool:
        """True if the run has its model and its `metrics.json`."""
        return self.metrics_file.exists() and self.model_file.exists()

    @property
    def minutes(self) -> float:
        """Duration of all epochs, including those before an interruption."""
        return sum(epoch.get("seconds", 0) for epoch in read_history(self.history_file)) / 60

    def backup_file(self, phase: int = 1) -> Path:
        """Return the file with the state of phase 1, 2, … of an unfinished training run."""
        return self.directory / f"backup-{phase}.weights.h5"

    def check(self, flags: dict[str, Any], overwrite: bool = False) -> None:
        """Raise unless the folder is new, empty, or an unfinished run with the same flags.

        Args:
            flags: values for `flags.json`.
            overwrite: accept any run, which `clear` removes.

        Raises:
            InputError: the folder has other files, other flags or a finished run.
        """
        state = self._conflict(flags)
        if state and overwrite:
            check_replaceable(self.directory, CONTENTS)
        elif state:
            raise InputError(
                "`run` must be a new folder, or an unfinished run with the same flags, got "
                f"{str(self.directory)!r} with {state}. Give another folder, or set `overwrite`.",
                "run",
            )

    def clear(self, flags: dict[str, Any]) -> None:
        """Remove the files of a finished run, or of a run with other flags."""
        if self._conflict(flags):
            check_replaceable(self.directory, CONTENTS)
            for path in self._visible():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _conflict(self, flags: dict[str, Any]) -> str:
        """Return the reason that a run with these flags cannot begin in the folder, or ""."""
        if self.finished:
            return "a finished run"
        if self.flags_file.exists():
            before = self.flags
            changed = [
                f"{key} was {before.get(key)!r} and is now {flags.get(key)!r}"
                for key in sorted({*before, *flags})
                if before.get(key) != flags.get(key)
            ]
            return f"a run with other flags: {'; '.join(changed)}" if changed else ""
        if self.directory.exists() and (not self.directory.is_dir() or any(self._visible())):
            return "other files"
        return ""

    def _visible(self) -> list[Path]:
        """Return the files, without the temporary ones of killed processes."""
        return [entry for entry in self.directory.iterdir() if not entry.name.startswith(".")]

    def claim(self) -> None:
        """Lock the folder against other processes, until `release` or the end of this process.

        Raises:
            InputError: another process trains in the folder.
        """
        if self._claim is None:
            claim = locked(self.directory / ".lock")
            claim.__enter__()
            self._claim = claim

    def release(self) -> None:
        """Unlock the folder, and remove it if it is empty."""
        if self._claim is not None:
            self._claim.__exit__(None, None, None)
            self._claim = None
            with suppress(OSError):
                self.directory.rmdir()

    def start(self, flags: dict[str, Any]) -> None:
        """Create the folder with its flags, or continue an unfinished run of the same flags.

        Args:
            flags: values for `flags.json`.

        Raises:
            InputError: see `check`; or another process trains in the folder.
        """
        self.check(flags)
        self.claim()
        write(self.flags_file, flags)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the scores and remove the backups, which finishes the run.

        Args:
            metrics: values for `metrics.json`.
        """
        write(self.metrics_file, metrics)
        for backup in self.directory.glob("backup-*.weights.h5"):
            backup.unlink()
        self.release()

    def save_models(self, members: "Sequence[keras.Model]") -> None:
        """Write all members; the first one, which marks the run as trained, last.

        Args:
            members: trained models; their optimizers and losses are not written.
        """
        from keras_reid.models.reid_model import uncompiled

        for number, model in reversed(list(enumerate(members, start=1))):
            with replaced_file(self.member_file(number)) as new:
                uncompiled(model).save(new)  # without the optimizer


def default(dataset: str, recipe: str, flags: dict[str, Any], root: str = "runs") -> Run:
    """Return the unfinished run of these flags, or a new run, in `runs/DATASET-RECIPE-N`.

    The run is locked for this process.

    Folders that another process uses are skipped.

    Args:
        dataset: name of the data set.
        recipe: name of the recipe.
        flags: values for `flags.json`.
        root: folder of all runs.
    """
    names = (f"{dataset}-{recipe}-{number}" for number in itertools.count(1))
    return next(run for run in (Run(Path(root) / name) for name in names) if _claimed(run, flags))


def _claimed(run: Run, flags: dict[str, Any]) -> bool:
    """Lock a new folder, or an unfinished run of these flags; return False for others."""
    new = not run.directory.exists()
    if new or (not run.finished and run.flags_file.exists() and run.flags == flags):
        with suppress(InputError):
            run.claim()
            return new or not run.finished
    return False


def read_history(file: Path) -> list[dict[str, Any]]:
    """Return the epochs of a `history.jsonl`, each with its "seconds"."""
    return read_json_lines(file, {"seconds": NUMBER}, RETRAIN)


def write(path: Path, value: dict[str, Any]) -> None:
    """Write or replace a JSON file."""
    with replaced_file(path) as new:
        new.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
