"""Addresses and times as people write them."""

from contextlib import suppress
from datetime import datetime

from keras_reid.errors import InputError
from keras_reid.names import expanded


def check_exists(uri: str) -> None:
    """Raise if the gallery does not exist, so that a typo does not create one."""
    if "://" in uri:
        return
    path = expanded(uri.removeprefix("faiss:") + (".rows" if uri.startswith("faiss:") else ""))
    if not path.exists():
        raise InputError(f"there is no gallery at {path}: enrol images first, or check the path")


def seconds(text: str | None) -> float | None:
    """Return seconds since 1970 from a number or ISO 8601, in local time unless it has a zone."""
    if not text:
        return None
    for read in (float, lambda text: datetime.fromisoformat(text).timestamp()):
        with suppress(ValueError):
            return read(text)
    raise InputError(
        f"times are seconds since 1970 or ISO 8601, 2026-01-31T12:00: received {text!r}"
    )
