"""Fixtures for all tests: quiet TensorFlow, real images, and folders shared by workers."""

import fcntl
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from keras_reid.evaluation import MatchCalibration

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds `data/` and `weights/` of real images, which are not shipped."""
    folder = Path(os.environ.get("KERAS_REID_REAL_DATA", ROOT / "../shared")).resolve()
    if not (folder / "data/market1501-mini").is_dir():
        pytest.skip(f"no real images in {folder}: set KERAS_REID_REAL_DATA to their folder")
    return folder


def match_within(distance: float) -> MatchCalibration:
    """Calibration with a match probability of one half at a distance, and near 1 at 0."""
    steep = 20 / abs(distance)
    return MatchCalibration(
        (steep * distance, -steep, 0, 0, 0), (steep * distance, -steep, 0), 1.0, "a distance"
    )


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that the first of the pytest-xdist workers builds and all of them read."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def pedestrians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small synthetic data set in the Market-1501 layout. Tests do not change it."""

    def build(folder: Path) -> None:
        from keras_reid.data import synthetic

        size = {"cameras": 3, "images_per_camera": 2, "size": (64, 32)}
        synthetic.generate(folder / "synthetic", train_identities=12, test_identities=6, **size)

    return built_once(tmp_path_factory, "drawn", build) / "synthetic"


@pytest.fixture(scope="session")
def tiny_run(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `run`, a small trained run, and the output of its training.

    Tests copy it before they change it.
    """

    def build(folder: Path) -> None:
        from processes import TINY, call

        data = ("--dataset=market1501", f"--data_dir={pedestrians}")
        code, out, err = call("train.py", *data, *TINY, "--run=run", cwd=folder)
        assert code == 0, err
        (folder / "out.txt").write_text(out)

    return built_once(tmp_path_factory, "tiny_run", build)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of a test with the marker `first(n)` beyond the first n as nightly."""
    cases: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("first")
        if marker is not None:
            name = item.nodeid.partition("[")[0]
            cases[name] += 1
            if cases[name] > marker.args[0]:
                item.add_marker(pytest.mark.nightly)
