"""Augmentations: permitted changes, their frequency, and reproducibility by seed."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_reid.data.augment import (
    GEOMETRIC,
    IMAGENET_MEAN,
    IN_PLACE,
    KERAS_CV,
    augmentation,
    with_keypoints,
)
from keras_reid.errors import InputError

ALL = [*GEOMETRIC, *(f"none+{name}" for name in IN_PLACE), "default+color+grayscale+blur"]
SIZE = (64, 32)
MEAN = np.array(IMAGENET_MEAN)


def pictures(b=200, size=SIZE, seed=0):
    """Noise without 0 and without the mean's red: padding and boxes are then recognizable."""
    noise = np.random.default_rng(seed).integers(1, 120, (b, *size, 3))
    return tf.constant(noise, tf.uint8)


def run(name, images, seed=(0, 0)):
    return augmentation(name)(images, tf.constant(seed, tf.int64)).numpy()


@pytest.mark.parametrize("name", ALL)
def test_augmentation_same_seed_is_deterministic_and_keeps_shape(name):
    images = pictures(8)
    first = run(name, images, (1, 2))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, run(name, images, (1, 2)))
    if name != "none":
        assert (first != run(name, images, (1, 3))).any()
        assert (first != run(name, images, (2, 2))).any()


def test_none_augmentation_keeps_images():
    images = pictures(4)
    np.testing.assert_array_equal(run("none", images), images)


def test_flip_augmentation_mirrors_half_of_images():
    images = pictures().numpy()
    flipped = run("flip", images)
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_crop_augmentation_equals_default_without_erasing():
    images = pictures(40)
    cropped, changed = run("crop", images), run("default", images)
    erased = (changed == MEAN).all(-1)
    assert erased.any()
    np.testing.assert_array_equal(cropped[~erased], changed[~erased])
    assert not (cropped == MEAN).all(-1)[erased].all()


def test_default_augmentation_crops_flips_and_erases():
    images = pictures().numpy()
    changed = run("default", images)
    vertical, horizontal = round(10 * SIZE[0] / 256), round(10 * SIZE[1] / 128)
    padded = np.pad(images, ((0, 0), (vertical,) * 2, (horizontal,) * 2, (0, 0)))
    erased = (changed == MEAN).all(-1)
    found = [locate(padded[i], changed[i], erased[i]) for i in range(len(images))]
    tops, lefts, mirrored = np.array(found).T
    assert set(tops) == set(range(2 * vertical + 1))
    assert set(lefts) == set(range(2 * horizontal + 1))
    assert 70 < mirrored.sum() < 130


def locate(padded, changed, erased):
    """Find the crop of the padded image, mirrored or not, that equals the changed one."""
    h, w = SIZE
    for top in range(len(padded) - h + 1):
        for left in range(padded.shape[1] - w + 1):
            crop = padded[top : top + h, left : left + w]
            for mirrored in (0, 1):
                candidate = crop[:, ::-1] if mirrored else crop
                if (candidate == changed)[~erased].all():
                    return top, left, mirrored
    raise AssertionError("no crop of the padded image explains the result")


@pytest.mark.parametrize("size", [(64, 32), (32, 32), (100, 20)])
def test_default_augmentation_erases_one_bounded_box_in_half_of_images(size):
    erased = (run("default", pictures(400, size)) == MEAN).all(-1)
    h, w = size
    hit = erased.any((1, 2))
    assert 150 < hit.sum() < 250
    for mask in erased[hit]:
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tall, wide = y[-1] - y[0] + 1, x[-1] - x[0] + 1
        assert mask.sum() == tall * wide
        # Rounding to whole pixels moves each side of the box by up to one.
        assert (tall - 1) * (wide - 1) <= 0.4 * h * w
        assert (tall + 1) * (wide + 1) >= 0.02 * h * w
        assert (tall - 1) / (wide + 1) <= 3.34
        assert (tall + 1) / (wide - 1 + 1e-9) >= 0.3
    assert erased[hit].mean((1, 2)).max() > 0.3


def test_default_augmentation_erasing_covers_every_row_and_column():
    erased = (run("default", pictures(400)) == MEAN).all(-1)
    assert erased.any((0, 1)).all()
    assert erased.any((0, 2)).all()


@pytest.mark.first(3)
@pytest.mark.parametrize("name", ALL)
def test_augmentation_inside_tf_data_matches_eager(name):
    images = pictures(6)
    seeds = tf.data.Dataset.from_tensors(tf.constant([3, 4], tf.int64))
    (inside,) = seeds.map(lambda seed: augmentation(name)(images, seed))
    np.testing.assert_array_equal(inside, run(name, images, (3, 4)))


def test_grayscale_augmentation_converts_fifth_of_images_to_luma():
    images = pictures(400).numpy()
    changed = run("none+grayscale", images)
    luma = (images * (0.299, 0.587, 0.114)).sum(-1, keepdims=True)
    gray = (np.abs(changed - luma) <= 0.5 + 1e-3).all((1, 2, 3))
    same = (changed == images).all((1, 2, 3))
    assert (gray ^ same).all()
    assert 50 < gray.sum() < 110


def test_blur_augmentation_filters_fifth_of_images():
    images = pictures(400).numpy()
    changed = run("none+blur", images)
    expected = images.astype(float)
    for axis in (1, 2):
        expected = ndimage.correlate1d(expected, [0.25, 0.5, 0.25], axis=axis, mode="reflect")
    blurred = (np.abs(changed - expected) <= 0.5 + 1e-3).all((1, 2, 3))
    same = (changed == images).all((1, 2, 3))
    assert (blurred ^ same).all()
    assert 50 < blurred.sum() < 110


def test_color_augmentation_jitter_stays_within_bounds():
    """The mean luma of a red square on gray is the brightness, which determines the rest."""
    images = np.full((300, 8, 8, 3), 100, np.uint8)
    images[:, :4, :4] = (160, 100, 100)
    changed = run("none+color", images).astype(float)
    luma = changed @ (0.299, 0.587, 0.114)
    before = images[0] @ (0.299, 0.587, 0.114)
    bright = luma.mean((1, 2)) / before.mean()
    contrast = (luma[:, 0, 0] - luma[:, 7, 7]) / (before[0, 0] - before[7, 7]) / bright
    vivid = (changed[:, 0, 0, 0] - changed[:, 0, 0, 1]) / 60 / bright / contrast
    for factor, slack in ((bright, 0.01), (contrast, 0.06), (vivid, 0.06)):
        assert factor.min() > 0.7 - slack
        assert factor.max() < 1.3 + slack
        assert factor.min() < 0.75
        assert factor.max() > 1.25
    gray = run("none+color", np.full((50, 4, 4, 3), 100, np.uint8))
    assert (gray == gray[:, :1, :1, :1]).all()  # what has no color gets none


def test_color_augmentation_keeps_geometry_and_keypoints():
    images, seed = pictures(20), tf.constant([5, 6], tf.int64)
    points = tf.random.stateless_uniform((20, 3, 3), (0, 1))
    plain, plain_points = with_keypoints("default", (0, 2, 1))(images, points, seed)
    changed, moved = with_keypoints("default+color", (0, 2, 1))(images, points, seed)
    np.testing.assert_array_equal(moved, plain_points)
    np.testing.assert_array_equal(
        (changed.numpy() == MEAN).all(-1), (plain.numpy() == MEAN).all(-1)
    )
    assert (changed != plain).numpy().any()
    np.testing.assert_array_equal(changed, run("default+color", images, (5, 6)))


def test_augmentation_function_is_returned_unchanged():
    def darker(images, seed):
        return images // 2

    assert augmentation(darker) is darker


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS_CV)
def test_keras_cv_augmentation_changes_images_and_keeps_uint8(name):
    pytest.importorskip("keras_cv")
    images = pictures(4)
    seeds = tf.data.Dataset.from_tensors(tf.constant([0, 0], tf.int64))
    change = augmentation(name)
    (changed,) = seeds.map(lambda seed: change(images, seed))
    assert changed.shape == images.shape
    assert changed.dtype == tf.uint8
    assert (changed != run("default", images)).numpy().any()


def test_augmentation_unknown_name_raises_with_known_names():
    with pytest.raises(InputError, match=r"none, flip, crop, default, randaugment.*got 'cutout'"):
        augmentation("cutout")
    for name in ("default+cutout", "color", "default+color+"):
        with pytest.raises(InputError, match=r"optionally with \+color, \+grayscale, \+blur"):
            augmentation(name)
    with pytest.raises(InputError, match=r"default, .*\+blur, for images with keypoints"):
        with_keypoints("augmix", (0,))


def test_augmentation_without_keras_cv_raises_with_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(InputError, match=r"keras_cv is not installed\. Run pip install"):
        augmentation("augmix")
