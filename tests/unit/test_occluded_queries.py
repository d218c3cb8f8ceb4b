"""Dataset copy with occluded query images, from `tools/occluded_queries.py`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import occluded_queries
import pytest
from PIL import Image

from keras_reid.data.keypoints import read_points
from keras_reid.data.readers.market import MARKET_FOLDERS
from keras_reid.errors import InputError


def files(root: Path, part: str) -> dict[str, Path]:
    return {file.name: file for file in (root / MARKET_FOLDERS[part]).glob("*.jpg")}


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(float)


@pytest.fixture(scope="module")
def copy(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("occluded") / "copy"
    count = occluded_queries.occluded(pedestrians, out, 0.3, 0.5, 0, pedestrians / "keypoints.csv")
    assert count == len(files(pedestrians, "query"))
    return out


def test_occluded_covers_queries_only_from_below_or_side(pedestrians: Path, copy: Path) -> None:
    for part in ("train", "gallery"):
        for name, file in files(pedestrians, part).items():
            assert files(copy, part)[name].read_bytes() == file.read_bytes()
    sides = set()
    for name, file in files(pedestrians, "query").items():
        changed = np.abs(pixels(files(copy, "query")[name]) - pixels(file)).max(2) > 60
        height, width = changed.shape
        (rows, columns) = np.nonzero(changed)
        assert changed.mean() > 0.1
        found = {
            "below": rows.min() >= height // 2 - 1,
            "left": columns.max() <= width // 2,
            "right": columns.min() >= width // 2 - 1,
        }
        (side,) = (side for side, holds in found.items() if holds)
        sides.add(side)
    assert sides == {"below", "left", "right"}


def test_occluded_same_seed_repeats_and_other_seed_differs(
    pedestrians: Path, copy: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    occluded_queries.occluded(pedestrians, again, 0.3, 0.5, seed=0)
    occluded_queries.occluded(pedestrians, other, 0.3, 0.5, seed=1)
    for name, file in files(copy, "query").items():
        assert files(again, "query")[name].read_bytes() == file.read_bytes()
        assert files(other, "query")[name].read_bytes() != file.read_bytes()
    assert not (again / "keypoints.csv").exists()


def test_occluded_keypoints_covered_points_lose_confidence(pedestrians: Path, copy: Path) -> None:
    skeleton, before, _ = read_points(pedestrians / "keypoints.csv")
    other, after, _ = read_points(copy / "keypoints.csv")
    assert other == skeleton
    assert list(after) == list(before)
    queries = files(copy, "query")
    hidden = 0
    for name, points in before.items():
        np.testing.assert_allclose(after[name][:, :2], points[:, :2], rtol=1e-3)
        if Path(name).name not in queries:
            np.testing.assert_allclose(after[name], points, rtol=1e-3)
            continue
        gone = (points[:, 2] > 0) & (after[name][:, 2] == 0)
        hidden += gone.any()
        change = np.abs(pixels(queries[Path(name).name]) - pixels(pedestrians / name)).max(2)
        for x, y in points[gone, :2].round().astype(int):
            near = change[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            assert not near.size or near.max() > 12
    assert hidden > len(queries) / 2


def test_unseen_points_in_box_have_zero_confidence() -> None:
    points = np.array([[0.0, 0, 1], [9, 9, 0.5], [9, 0, 0.7]])
    seen = occluded_queries.unseen(points, (0, 0.5, 1, 1), (10, 10))
    np.testing.assert_array_equal(seen, [[0, 0, 1], [9, 9, 0], [9, 0, 0.7]])


@pytest.mark.slow
def test_occluded_invalid_shares_or_nonempty_out_raises(pedestrians: Path, tmp_path: Path) -> None:
    for least, most in ((0, 0.5), (0.5, 0.4), (0.5, 1), (float("nan"), 0.5)):
        with pytest.raises(InputError, match="shares are above 0"):
            occluded_queries.occluded(pedestrians, tmp_path / "new", least, most, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    command = [sys.executable, occluded_queries.__file__, f"--data_dir={pedestrians}"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'full'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "must be a new or empty folder, got other files. Choose another path."
    )
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["file"]
