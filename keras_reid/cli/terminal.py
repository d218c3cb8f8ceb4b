"""Printed results, progress, and checks of output paths."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

from tqdm import tqdm

from keras_reid.errors import invalid, printable
from keras_reid.io import check_writable, new_file

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")  # written formats
EVERY = 10.0  # seconds between lines of progress in a pipe
AFTER = 2.0  # seconds until a bar is shown on a terminal


def say(text: str = "") -> None:
    """Print at once, so that pipes show progress, without control characters."""
    print(printable(text), flush=True)


def json_text(value: Any) -> str:
    """Return JSON, with escapes if the encoding of stdout lacks a character of it."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def write_json(file: str, values: Any, overwrite: bool = False) -> None:
    """Write values to a JSON file and print its path."""
    with new_file(file, overwrite) as new:
        new.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    say(f"scores: {file}")


def progress(name: str) -> Callable[[int, int | None], None]:
    """Return a function that reports the progress, the rate and the remaining time on stderr.

    On a terminal it shows a bar for loops of more than two seconds, which is cleared at the end. In
    a pipe it prints a line every ten seconds.
    """
    bar: Any = None
    begin = printed = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal bar, begin, printed
        now = time.monotonic()
        if bar is None or done < bar.n or total != bar.total:  # a loop begins
            if bar is not None:
                bar.close()
            shown = {"delay": AFTER, "leave": False, "dynamic_ncols": True}
            pipe = not sys.stderr.isatty()
            bar = tqdm(None, name, total, file=sys.stderr, disable=pipe, **shown)
            begin = printed = now
        bar.update(done - bar.n)
        bar.n = done  # a disabled bar does not count
        if bar.disable and now - printed >= EVERY:
            printed = now
            line = tqdm.format_meter(done, total, now - begin, ncols=0)
            print(f"{name}: {line.strip()}", file=sys.stderr, flush=True)
        if total is not None and done >= total:
            bar.close()

    return report


@contextmanager
def interruption() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; the second one interrupts at once.

    Only the main thread receives Ctrl-C; in other threads the event is never set.
    """
    event = Event()
    if current_thread() is not main_thread():
        yield event
        return

    def stop(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def check_picture(**outputs: str | None) -> None:
    """Raise for an output file, by its flag, that has another suffix than a picture."""
    for name, file in outputs.items():
        if file and Path(file).suffix.lower() not in PICTURES:
            raise invalid(name, f"a path that ends in {', '.join(PICTURES)}", file)


def check_outputs(overwrite: bool = False, **outputs: str | None) -> None:
    """Raise for an output, by its flag, that exists without `overwrite` or cannot be written."""
    for name, file in outputs.items():
        if file and os.path.lexists(file) and not overwrite:
            raise invalid(name, "a new path", file, "Choose another path, or set `overwrite`.")
        if file:
            check_writable(file)
