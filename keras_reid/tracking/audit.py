"""Log of a watch, and removal of old log lines and crops."""

import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keras_reid.errors import invalid
from keras_reid.io import PRIVATE, locked, replaced_file
from keras_reid.io.writing import writing
from keras_reid.names import StrPath, expanded

UNITS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
CROP = re.compile(r"\d{8,}\.jpg")  # names of `BestCrops`
PERIOD = 3600.0  # seconds between two removals


class AuditLog:
    """Text file that grows by lines of JSON; only its owner can read it.

    Several processes can append to a log at the same time.

    Args:
        path: the file, which is created if it does not exist.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = expanded(path)
        self._lock = self.path.with_name(f".{self.path.name}.lock")

    def append(self, **entry: Any) -> None:
        """Append an entry, with the present time as `logged`.

        Raises:
            InputError: the file cannot be written.
        """
        text = json.dumps({"logged": _utc(time.time()), **entry}, ensure_ascii=False)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with (
            locked(self._lock, wait=True),
            writing(self.path, self.path.name),
            open(os.open(self.path, flags, PRIVATE), "a", encoding="utf-8") as file,
        ):
            file.write(text + "\n")

    def remove_before(self, moment: float) -> int:
        """Remove the lines logged before a time, in seconds since 1970, and return their number.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.path.exists():
            return 0
        with locked(self._lock, wait=True):
            lines = self.path.read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if not _logged(line) < moment]
            if len(kept) < len(lines):
                with replaced_file(self.path, PRIVATE) as file:
                    file.write_text("".join(kept), "utf-8")
        return len(lines) - len(kept)


class Retention:
    """Removal of log lines and crops that are older than a period.

    Args:
        period: number and unit: `"12h"`, `"30d"` or `"4w"`.
        log: log of a watch; None: no log.
        crops: folder of crops; None: no folder. Only files with the names of `BestCrops` are
            removed.

    Raises:
        InputError: another period.
    """

    def __init__(self, period: str, log: AuditLog | None, crops: StrPath | None) -> None:
        self.seconds = check_retention(period)
        self.log = log
        self.crops = None if crops is None else expanded(crops)
        self._next = 0.0

    def apply(self) -> None:
        """Remove older lines and crops, at most once per hour, and log the numbers.

        Raises:
            InputError: the log cannot be written.
        """
        now = time.time()
        if now < self._next:
            return
        self._next = now + PERIOD
        crops = self._remove_crops(now - self.seconds)
        if self.log is not None:
            lines = self.log.remove_before(now - self.seconds)
            if crops or lines:
                self.log.append(event="retention", removed_crops=crops, removed_lines=lines)

    def _remove_crops(self, moment: float) -> int:
        if self.crops is None or not self.crops.is_dir():
            return 0
        files = [file for file in self.crops.rglob("*.jpg") if CROP.fullmatch(file.name)]
        old = [file for file in files if file.stat().st_mtime < moment]
        for file in old:
            file.unlink(missing_ok=True)
            _remove_empty(file.parent, self.crops)
        return len(old)


def check_retention(period: str) -> float:
    """Return the seconds of a period such as `"30d"`.

    Raises:
        InputError: another period.
    """
    match = re.fullmatch(r"(\d{1,6})([hdw])", period)
    if not match or not int(match[1]):
        raise invalid("retention", "a number and h, d or w, such as 30d", period)
    return int(match[1]) * UNITS[match[2]]


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _logged(line: str) -> float:
    """Return the time of a line in seconds since 1970; infinity for another line."""
    try:
        return datetime.fromisoformat(json.loads(line)["logged"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
