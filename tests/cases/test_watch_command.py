"""`track.py --watch`: events of enrolled persons, the audit log and the retention."""

import json
import os
import time

import numpy as np
import pytest
from conftest import match_within
from PIL import Image
from processes import within

from keras_reid import gallery, tracking
from keras_reid.cli import common
from keras_reid.tracking import pipeline

FLAGS = ("--source=frames", "--detections=det.txt", "--gallery=file:people", "--watch")


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A red person in frames 1 to 8 of 20, in the gallery, and a blue one who is not enrolled."""
    pytest.importorskip("faiss")
    (tmp_path / "frames").mkdir()
    lines = []
    for frame in range(1, 21):
        picture = Image.new("RGB", (80, 60))
        if frame <= 8:
            picture.paste((250, 0, 0), (10, 10, 20, 40))
            lines.append(f"{frame},-1,11,11,10,30,1")
        picture.paste((0, 0, 250), (50, 10, 60, 40))
        lines.append(f"{frame},-1,51,11,10,30,1")
        picture.save(tmp_path / f"frames/{frame}.png")
    (tmp_path / "det.txt").write_text("\n".join(lines))
    with gallery.open(f"file:{tmp_path}/people") as people:
        people.enrol(np.eye(3)[:2], ["anna", "bert"], model_fingerprint="m")
        people.calibration = match_within(0.3)

    def embed(images):
        return images.mean(axis=(1, 2)) / 255

    monkeypatch.setattr(common.ModelOptions, "pixel_embedder", lambda self: (embed, (16, 8)))
    monkeypatch.setattr(common.ModelOptions, "fingerprint", "m")
    return tmp_path


def log_of(folder):
    lines = (folder / "watch-audit.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_track_watch_prints_and_logs_events(scene):
    flags = ("--camera=door", "--max_age=3", "--start=1000", "--crops=crops")
    code, out, err = within("track.py", *FLAGS, *flags, cwd=scene)
    assert code == 0, err
    lines = [line for line in out.splitlines() if "anna" in line]
    assert len(lines) == 2
    assert lines[0].startswith("1970-01-01T00:16:40.080+00:00 door: anna appears (> 99 %), track 1")
    assert lines[1].startswith("1970-01-01T00:16:40.280+00:00 door: anna leaves")
    assert ".jpg" in lines[0]
    assert "bert" not in out
    log = log_of(scene)
    assert [entry["event"] for entry in log] == ["start", "appears", "leaves", "end"]
    assert log[1]["person"] == "anna"
    assert (scene / log[2]["crop"]).exists()
    with gallery.open(f"file:{scene}/people") as people:
        assert people.count() == 2  # nobody is enrolled


def test_track_watch_json_lines(scene):
    code, out, err = within("track.py", *FLAGS, "--watch_format=json", cwd=scene)
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [(one["person"], one["event"]) for one in events] == [
        ("anna", "appears"),
        ("anna", "leaves"),
    ]
    assert events[0]["crop"] is None


def test_track_without_watch_writes_no_log(scene):
    flags = tuple(flag for flag in FLAGS if flag != "--watch")
    code, out, err = within("track.py", *flags, "--out=t.txt", cwd=scene)
    assert code == 0, err
    assert "appears" not in out
    assert not (scene / "watch-audit.jsonl").exists()


def test_track_watch_retention_removes_old_crops_and_lines(scene):
    flags = (*FLAGS, "--crops=crops")
    assert within("track.py", *flags, cwd=scene)[0] == 0
    old = time.time() - 31 * 86400
    crops = list((scene / "crops").rglob("*.jpg"))
    assert crops
    for crop in crops:
        os.utime(crop, (old, old))
    text = (scene / "watch-audit.jsonl").read_text()
    text = text.replace(f'"logged": "{text[12:22]}', '"logged": "2020-01-01')
    (scene / "watch-audit.jsonl").write_text(text)
    code, _, err = within("track.py", *flags, "--retention=30d", cwd=scene)
    assert code == 0, err
    assert not any(crop.exists() for crop in crops)
    log = log_of(scene)
    assert [one["event"] for one in log] == ["start", "retention", "appears", "leaves", "end"]
    assert log[1]["removed_lines"] == 4
    assert log[1]["removed_crops"] == len(crops)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--watch",), "--gallery is required for --watch"),
        (("--retention=30d",), "--watch or --crops is required for --retention"),
        (("--crops=c", "--retention=1y"), "--retention must be a number and h, d or w"),
    ],
)
def test_track_invalid_watch_flags_raise(tmp_path, flags, message):
    code, _, err = within("track.py", "--source=x", "--out=t.txt", *flags, cwd=tmp_path)
    assert code == 1
    assert message in err


def test_track_watch_empty_gallery_raises_before_frames(scene, monkeypatch):
    monkeypatch.setattr(pipeline, "ahead", lambda *args, **more: pytest.fail("frames are read"))
    with gallery.open(f"file:{scene}/none") as people:
        people.calibration = match_within(0.3)
    flags = ("--source=frames", "--detections=det.txt", "--gallery=file:none", "--watch")
    code, _, err = within("track.py", *flags, cwd=scene)
    assert code == 1
    assert "The gallery is empty. Enrol images first." in err
    assert tracking.AuditLog(scene / "watch-audit.jsonl").remove_before(0) == 0
