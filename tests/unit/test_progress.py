"""Progress output: a bar on a terminal, and a line every ten seconds in a pipe."""

import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from keras_reid import data, inference, models
from keras_reid.cli import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by the test."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_progress_in_pipe_prints_line_every_ten_seconds(clock, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    tell = terminal.progress("embedding")
    for done in range(1, 61):
        clock[0] = 0.5 * done
        tell(10 * done, 600)
    lines = err.getvalue().splitlines()
    # The loop begins with its first call, half a second late.
    assert len(lines) == 2
    assert lines[0].startswith("embedding: ")
    assert "210/600" in lines[0]
    assert "it/s" in lines[0]
    assert "\r" not in err.getvalue()


def test_progress_second_loop_restarts_count(clock, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    tell = terminal.progress("neighbors")
    for now, done, total in ((0, 1, 4), (11, 4, 4), (11, 1, 5), (22, 3, 5), (23, 5, 5)):
        clock[0] = now
        tell(done, total)
    assert re.findall(r"\d+/\d+", err.getvalue()) == ["4/4", "3/5"]


def test_progress_unknown_total_prints_rate(clock, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    tell = terminal.progress("detecting")
    tell(1, None)
    clock[0] = 20
    tell(41, None)
    assert err.getvalue() == "detecting: 41it [00:20,  2.05it/s]\n"


def test_progress_on_terminal_short_loop_prints_nothing(monkeypatch):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    tell = terminal.progress("ranking")
    for done in (1, 2, 3):
        tell(done, 3)
    assert err.getvalue().strip() == ""


def test_progress_on_terminal_bar_is_cleared_at_end(monkeypatch):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(terminal, "AFTER", 0.0)
    tell = terminal.progress("ranking")
    tell(1, 4)
    shown = err.getvalue()
    assert "ranking" in shown
    assert "0/4" in shown
    tell(4, 4)
    gone = err.getvalue()[len(shown) :].split("\r")
    assert not "".join(gone[-2:]).strip()


def test_embedder_embed_reports_progress_per_batch(tmp_path):
    for i in range(5):
        Image.new("RGB", (16, 32)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    images = data.PersonImages(np.array(paths), np.arange(5), None)
    embedder = inference.load(models.build("tiny", None, (32, 16), weights="none"))
    told = []
    embedder.embed(images, 2, progress=lambda *at: told.append(at))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_readable_reports_progress_of_all_images(tmp_path):
    for i in range(300):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "007.png").write_bytes(b"no image")
    paths = np.array(sorted(map(str, tmp_path.iterdir())))
    told = []
    left = data.readable(
        data.PersonImages(paths, np.arange(300), None), progress=lambda *at: told.append(at)
    )
    assert len(left) == 299
    assert told == [(257, 300), (300, 300), (300, 300)]
