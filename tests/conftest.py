"""Fixtures for all tests: quiet TensorFlow, and the real images where they are to be had."""

import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds `data/` and `weights/` of real images, which are not shipped."""
    folder = Path(os.environ.get("KERAS_REID_REAL_DATA", ROOT / "../shared")).resolve()
    if not (folder / "data/market1501-mini").is_dir():
        pytest.skip(f"no real images in {folder}: set KERAS_REID_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def pedestrians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in the Market-1501 layout."""
    from keras_reid.data import synthetic

    root = tmp_path_factory.mktemp("drawn") / "synthetic"
    synthetic.generate(
        root, train_identities=12, test_identities=6, cameras=3, images_per_camera=2, size=(64, 32)
    )
    return root


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test with the marker `first(n)`, the cases beyond n are thorough."""
    cases: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("first")
        if marker is not None:
            name = item.nodeid.partition("[")[0]
            cases[name] += 1
            if cases[name] > marker.args[0]:
                item.add_marker(pytest.mark.thorough)
