"""Dataset copy with badly cropped test images, from `tools/shifted_boxes.py`."""

from pathlib import Path

import numpy as np
import pytest
import shifted_boxes
from PIL import Image

from keras_reid.data.readers.market import MARKET_FOLDERS
from keras_reid.errors import InputError


def files(root: Path, part: str) -> dict[str, Path]:
    return {file.name: file for file in (root / MARKET_FOLDERS[part]).iterdir()}


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(float)


@pytest.fixture(scope="module")
def copy(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shifted") / "copy"
    count = shifted_boxes.shifted(pedestrians, out, 0.2, 0.2, seed=0)
    assert count == len(files(pedestrians, "query")) + len(files(pedestrians, "gallery"))
    return out


def test_shifted_recuts_query_and_gallery_but_not_train(pedestrians: Path, copy: Path) -> None:
    for part in MARKET_FOLDERS:
        before, after = files(pedestrians, part), files(copy, part)
        assert sorted(before) == sorted(after)
        for name, file in before.items():
            if part == "train":
                assert after[name].read_bytes() == file.read_bytes()
            else:
                assert pixels(after[name]).shape == pixels(file).shape
                assert np.abs(pixels(after[name]) - pixels(file)).mean() > 2


def test_shifted_same_seed_repeats_and_other_seed_differs(
    pedestrians: Path, copy: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    shifted_boxes.shifted(pedestrians, again, 0.2, 0.2, seed=0)
    shifted_boxes.shifted(pedestrians, other, 0.2, 0.2, seed=1)
    for name, file in files(copy, "query").items():
        assert files(again, "query")[name].read_bytes() == file.read_bytes()
        assert files(other, "query")[name].read_bytes() != file.read_bytes()


def test_cut_box_beyond_image_repeats_border_rows() -> None:
    """Two rows too low: the upper ones are gone, and the lowest one is repeated."""
    ramp = np.repeat(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None], 4, 1).repeat(3, 2)
    lower = np.asarray(shifted_boxes.cut(Image.fromarray(ramp), (0.0, 0.2, 1.0, 1.2)))
    np.testing.assert_array_equal(lower[:, 0, 0], [40, 60, 80, 100, 120, 140, 160, 180, 180, 180])
    higher = np.asarray(shifted_boxes.cut(Image.fromarray(ramp), (0.0, -0.2, 1.0, 0.8)))
    np.testing.assert_array_equal(higher[:, 0, 0], [0, 0, 0, 20, 40, 60, 80, 100, 120, 140])
    same = np.asarray(shifted_boxes.cut(Image.fromarray(ramp), (0.0, 0.0, 1.0, 1.0)))
    np.testing.assert_array_equal(same, ramp)


def test_box_draws_stay_in_documented_ranges() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([shifted_boxes.box(random, 0.2, 0.1) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    np.testing.assert_allclose(right - left, 1)
    assert np.abs(left).max() == pytest.approx(0.05, abs=1e-3)
    assert bottom.max() <= 1.2
    assert top.min() >= -0.2
    height = bottom - top
    assert (height.min(), height.max()) == pytest.approx((0.9, 1), abs=1e-3)
    assert height.mean() == pytest.approx(0.95, abs=0.003)
    # A cut at the top moves the middle down, one at the bottom up.
    assert ((top + bottom) / 2).mean() == pytest.approx(0.5, abs=0.01)
    assert shifted_boxes.box(random, 0, 0) == (0, 0, 1, 1)


def test_shifted_invalid_folder_raises_and_changes_nothing(
    pedestrians: Path, copy: Path, tmp_path: Path
) -> None:
    before = sorted(copy.rglob("*"))
    with pytest.raises(InputError, match=r"new or empty folder, got other files"):
        shifted_boxes.shifted(pedestrians, copy, 0.2, 0.2, 0)
    assert sorted(copy.rglob("*")) == before
    with pytest.raises(InputError, match="must be a readable folder"):
        shifted_boxes.shifted(tmp_path / "nothing", tmp_path / "out", 0.2, 0.2, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.2, 1.0)])
def test_shifted_invalid_shares_raises(
    pedestrians: Path, tmp_path: Path, shares: tuple[float, float]
) -> None:
    with pytest.raises(InputError, match=r"shares in \[0, 1\)"):
        shifted_boxes.shifted(pedestrians, tmp_path / "out", *shares, seed=0)
