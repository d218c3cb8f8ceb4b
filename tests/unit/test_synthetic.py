"""Synthetic pedestrians: reproducible, in the Market-1501 layout, hard without training."""

import json
import time

import keras
import numpy as np
import pytest
from PIL import Image

from keras_reid import data, evaluation
from keras_reid.data import synthetic
from keras_reid.errors import InputError

SMALL = {"train_identities": 3, "test_identities": 2, "cameras": 2, "images_per_camera": 2}


@pytest.fixture(scope="module")
def images_of_persons() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 (n, 64, 32, 3) of 50 people in 4 cameras, twice each, with identity and camera."""
    keys = [(i, c, k) for i in range(50) for c in range(1, 5) for k in range(2)]
    pixels = np.stack([synthetic.draw(*key, size=(64, 32)) for key in keys])
    return pixels, *np.array(keys).T[:2]


def mean_average_precision(features: np.ndarray, ids: np.ndarray, cams: np.ndarray) -> float:
    query = np.arange(len(ids)) % 2 == 0
    sides = (evaluation.Labels(ids[side], cams[side]) for side in (query, ~query))
    return evaluation.rank((features[query], features[~query]), *sides).mAP


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (96, 96), (33, 17)])
def test_draw_same_arguments_repeats_image(size: tuple[int, int]) -> None:
    image = synthetic.draw(3, 1, 0, seed=5, size=size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, synthetic.draw(3, 1, 0, seed=5, size=size))
    for other in ((4, 1, 0, 5), (3, 2, 0, 5), (3, 1, 1, 5), (3, 1, 0, 6)):
        different = synthetic.draw(*other, size=size).astype(int)
        assert np.abs(different - image).mean() > 5, other


def test_generate_folder_loads_as_market1501(tmp_path) -> None:
    synthetic.generate(tmp_path / "drawn", **SMALL, distractors=3)
    dataset = data.load("market1501", str(tmp_path / "drawn"))
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (12, 4, 4 + 3)
    assert set(dataset.gallery.identity) == {0, 4, 5}
    assert set(dataset.train.identity).isdisjoint(dataset.gallery.identity)
    report = data.check(dataset)
    assert report.ok, report
    with Image.open(dataset.train.path[0]) as image:
        assert image.size == (64, 128)


def test_generate_same_seed_writes_same_bytes(tmp_path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic.generate(tmp_path / name, **SMALL, seed=seed, size=(32, 16))
    file = "query/0004_c1s1_000000_00.jpg"
    a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_generate_existing_folder_is_not_overwritten(tmp_path) -> None:
    root = tmp_path / "drawn"
    synthetic.generate(root, **SMALL, size=(32, 16))
    file = next((root / "query").iterdir())
    before = file.stat().st_mtime_ns
    time.sleep(0.01)
    synthetic.generate(root, **SMALL, size=(32, 16))
    assert file.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"`seed` must be 0, as in the data set .*got 1"):
        synthetic.generate(root, **SMALL, size=(32, 16), seed=1)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="must be a new or empty folder, got other files"):
        synthetic.generate(mine, **SMALL)
    assert [entry.name for entry in mine.iterdir()] == ["thesis.tex"]
    assert json.loads((root / "synthetic.json").read_text())["train_identities"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": 1}, "cameras.* at least 2.* 1"),
        ({"images_per_camera": 1}, "images_per_camera.* at least 2"),
        ({"train_identities": 0}, "train_identities.* at least 1"),
        ({"size": (8, 8)}, "size.* at least 16"),
        ({"seed": -1}, "seed.* at least 0"),
    ],
)
def test_generate_invalid_arguments_raises(changes: dict, message: str, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        synthetic.generate(tmp_path / "drawn", **{**SMALL, **changes})
    assert not (tmp_path / "drawn").exists()


@pytest.mark.slow
def test_synthetic_raw_pixels_and_colors_have_low_map(images_of_persons) -> None:
    """Raw pixels have less than 35 % mAP; without the cameras' means, far more than by chance."""
    pixels, ids, cams = images_of_persons
    raw = pixels.reshape(len(pixels), -1).astype("float32")
    stripes = pixels.reshape(len(pixels), 4, 16, 32, 3) // 64
    color = stripes[..., 0].astype(int) * 16 + stripes[..., 1] * 4 + stripes[..., 2]
    histogram = np.stack(
        [[np.bincount(stripe.ravel(), minlength=64) for stripe in image] for image in color]
    )
    histogram = np.sqrt(histogram.reshape(len(pixels), -1).astype("float32"))
    shuffled = np.random.default_rng(0).permutation(ids[::2]).repeat(2)
    for features in (raw, histogram):
        assert mean_average_precision(features, ids, cams) < 0.35
        balanced = features.copy()
        for camera in np.unique(cams):
            balanced[cams == camera] -= features[cams == camera].mean(0)
        score = mean_average_precision(balanced, ids, cams)
        assert score < 0.35
        assert score > 2 * mean_average_precision(balanced, shuffled, cams)


@pytest.mark.slow
@pytest.mark.real
def test_synthetic_imagenet_features_have_low_map(images_of_persons, real_data) -> None:
    net = keras.saving.load_model(real_data / "weights/mobilenetv2_imagenet.keras")
    pixels, ids, cams = (column[:200] for column in images_of_persons)
    large = keras.ops.image.resize(pixels.astype("float32"), (128, 64))
    features = net.predict(large, batch_size=50, verbose=0).mean((1, 2))
    assert mean_average_precision(features, ids, cams) < 0.35
