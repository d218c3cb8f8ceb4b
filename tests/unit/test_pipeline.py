"""Batches from image files: content, order, seeds, checkpoints, caches and bad input."""

import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_reid.data import cache as caching
from keras_reid.data.images import PersonImages
from keras_reid.data.pipeline import image_batches, pk_batches
from keras_reid.data.sampling import pk_steps
from keras_reid.errors import InputError

SIZE = (32, 16)
PK = {"num_identities_per_batch": 3, "num_instances": 2, "image_size": SIZE}


@pytest.fixture
def images(tmp_path):
    """18 PNG files of 5 identities; the red of every pixel is the row, PNG keeps it exact."""
    identity = np.array(list("aaaabbbbccccdddeee"))
    paths = [tmp_path / f"{row:02}_{name}.png" for row, name in enumerate(identity)]
    rng = np.random.default_rng(0)
    for row, path in enumerate(paths):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        pixels[..., 0] = row
        Image.fromarray(pixels).save(path)
    return PersonImages(paths, identity, np.arange(18) % 4)


def batches_of(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def assert_equal(actual, expected):
    tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def test_pk_batches_pixels_and_labels_match_files(images):
    steps = pk_steps(images, 3, 2)
    batches = batches_of(pk_batches(images, augment="none", **PK), steps)
    files = np.stack([np.asarray(Image.open(path)) for path in images.path])
    seen = set()
    for pixels, labels in batches:
        rows = pixels[:, 0, 0, 0]
        np.testing.assert_array_equal(pixels, files[rows])
        np.testing.assert_array_equal(labels["identity"], images.classes()[1][rows])
        np.testing.assert_array_equal(labels["camera"], images.camera[rows])
        assert len(set(labels["identity"])) == 3
        seen.update(rows)
    assert seen == set(range(18))


def test_pk_batches_element_spec_has_static_shapes(images):
    pixels, labels = pk_batches(images, **PK).element_spec
    assert (pixels.shape, pixels.dtype) == ((6, *SIZE, 3), tf.uint8)
    assert {name: spec.dtype for name, spec in labels.items()} == {
        "identity": tf.int32,
        "camera": tf.int32,
    }
    without = PersonImages(images.path, images.identity, None)
    assert set(pk_batches(without, **PK).element_spec[1]) == {"identity"}


@pytest.mark.first(1)
@pytest.mark.parametrize("cache", [None, "memory"])
def test_pk_batches_same_seed_repeats_and_first_epoch_continues(images, cache):
    steps = pk_steps(images, 3, 2)
    stream = batches_of(pk_batches(images, seed=5, cache=cache, **PK), 3 * steps)
    assert_equal(batches_of(pk_batches(images, seed=5, cache=cache, **PK), 3 * steps), stream)
    later = pk_batches(images, seed=5, first_epoch=2, cache=cache, **PK)
    assert_equal(batches_of(later, steps), stream[2 * steps :])
    other = batches_of(pk_batches(images, seed=6, cache=cache, **PK), 1)
    assert (other[0][0] != stream[0][0]).any()


def test_pk_batches_augment_seeds_differ_by_epoch_and_position(images):
    def show(pixels, seed):
        return tf.ones_like(pixels) * tf.cast(seed[0] & 255, tf.uint8)

    stream = pk_batches(images, augment=show, **PK)
    seeds = [pixels[0, 0, 0, 0] for pixels, _ in batches_of(stream, 12)]
    assert len(set(seeds)) > 9


def test_pk_batches_views_are_separate_augmentations(images):
    single = batches_of(pk_batches(images, **PK, seed=4), 4)
    for (plain, labels), (views, same) in zip(
        single, batches_of(pk_batches(images, **PK, seed=4, views=3), 4), strict=True
    ):
        assert len(views) == 3
        assert_equal(labels, same)
        assert_equal(plain, views[0])
        assert not np.array_equal(views[1], views[0])
        assert not np.array_equal(views[2], views[1])
    unchanged = pk_batches(images, **PK, seed=4, views=2, augment="none")
    for (one, two), _ in batches_of(unchanged, 4):
        assert_equal(one, two)


def test_pk_batches_camera_balanced_shows_both_cameras_of_identity(images):
    two = PersonImages(images.path[:12], images.identity[:12], np.arange(12) // 2 % 2)

    def mixed(**more):
        batches = batches_of(pk_batches(two, augment="none", **PK, **more), 20)
        pairs = np.stack([labels["camera"] for _, labels in batches]).reshape(-1, 2)
        return (pairs[:, 0] != pairs[:, 1]).mean()

    assert mixed(camera_balanced=True) == 1
    assert mixed() < 0.9
    with pytest.raises(InputError, match=r"with cameras, got .*no cameras\)\. Leave"):
        pk_batches(PersonImages(two.path, two.identity, None), camera_balanced=True, **PK)


@pytest.mark.first(1)
@pytest.mark.parametrize("cache", [None, "memory", "folder"])
def test_pk_batches_checkpointed_iterator_resumes_bit_equal(images, cache, tmp_path):
    cache = tmp_path / "cache" if cache == "folder" else cache
    iterator = iter(pk_batches(images, seed=1, cache=cache, **PK))
    for _ in range(pk_steps(images, 3, 2) + 1):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "saved"))
    expected = [tf.nest.map_structure(np.asarray, next(iterator)) for _ in range(6)]
    resumed = iter(pk_batches(images, seed=1, cache=cache, **PK))
    tf.train.Checkpoint(iterator=resumed).read(path).assert_consumed()
    assert_equal([tf.nest.map_structure(np.asarray, next(resumed)) for _ in range(6)], expected)


@pytest.mark.parametrize("cache", [None, "memory", "folder"])
def test_image_batches_keeps_order_and_drops_nothing(images, cache, tmp_path):
    cache = tmp_path / "cache" if cache == "folder" else cache
    dataset = image_batches(images, 4, SIZE, cache)
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches)[:, 0, 0, 0], np.arange(18))
    assert dataset.element_spec.shape.as_list() == [None, *SIZE, 3]


@pytest.mark.first(1)
@pytest.mark.parametrize("cache", ["memory", "folder"])
def test_pk_batches_cache_does_not_change_batches(images, cache, tmp_path):
    cache = tmp_path / "cache" if cache == "folder" else cache
    for size in (SIZE, (20, 24)):
        arguments = {**PK, "image_size": size}
        plain = batches_of(pk_batches(images, **arguments), 5)
        assert_equal(batches_of(pk_batches(images, cache=cache, **arguments), 5), plain)


@pytest.mark.parametrize("size", [(24, 12), (64, 32), (24, 32)])
def test_image_batches_resize_matches_antialiased_resize(images, size):
    (batch,) = image_batches(images, 18, size)
    source = np.stack([np.asarray(Image.open(path)) for path in images.path])
    expected = tf.image.resize(source, size, antialias=True)
    assert np.abs(batch.numpy() - expected.numpy()).max() <= 0.51
    assert batch.dtype == tf.uint8


def test_cache_file_is_reused_until_image_files_change(images, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the cache is complete")

    folder = tmp_path / "deep" / "cache"
    before = batches_of(pk_batches(images, augment="none", cache=folder, **PK), 4)
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(caching, "write", refuse)
        assert_equal(batches_of(pk_batches(images, augment="none", cache=folder, **PK), 4), before)
    assert file.stat().st_mtime_ns == written
    for path in images.path:  # with equal sizes and times of modification
        stamp = os.stat(path)
        with open(path, "r+b") as broken:
            broken.write(b"\0" * 8)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(InputError, match="unreadable"):
        pk_batches(images, cache=folder, **PK)


def test_cache_other_images_or_sizes_use_separate_files(images, tmp_path):
    folder = tmp_path / "cache"
    list(image_batches(images, 18, SIZE, folder))
    reverse = images[::-1]
    (batch,) = image_batches(reverse, 18, SIZE, folder)
    np.testing.assert_array_equal(batch[:, 0, 0, 0], np.arange(18)[::-1])
    (batch,) = image_batches(images, 18, SIZE[::-1], folder)
    assert batch.shape == (18, *SIZE[::-1], 3)
    assert len(list(folder.iterdir())) == 3


def test_cache_truncated_file_is_rewritten(images, tmp_path):
    (expected,) = image_batches(images, 18, SIZE, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    os.truncate(file, 1000)
    (batch,) = image_batches(images, 18, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(batch, expected)


def test_cache_failed_write_leaves_no_file(images, tmp_path):
    os.truncate(images.path[17], 0)
    with pytest.raises(tf.errors.OpError):
        image_batches(images, 4, SIZE, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_insufficient_disk_space_raises(images, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="No space left on device"):
        image_batches(images, 4, SIZE, tmp_path / "cache")


def test_pk_batches_unreadable_image_is_skipped_and_logged(images, caplog):
    many = PersonImages(
        np.tile(images.path, 6), np.tile(images.identity, 6), np.tile(images.camera, 6)
    )
    broken = images.path[0].replace("00_a", "broken")
    with open(broken, "wb") as file:
        file.write(b"\xff\xd8\xff")
    many = PersonImages([broken, *many.path], ["a", *many.identity], [0, *many.camera])
    dataset = pk_batches(many, augment="none", **PK)
    assert "broken.png" in caplog.text
    left = PersonImages(many.path[1:], many.identity[1:], many.camera[1:])
    assert_equal(batches_of(dataset, 9), batches_of(pk_batches(left, augment="none", **PK), 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_identities_per_batch": 6}, r"`num_identities_per_batch` must be in \[1, 5\], got 6"),
        ({"image_size": (0, 16)}, r"`image_size` must be \(height, width\).* got \(0, 16\)"),
        ({"image_size": (32,)}, r"`image_size` must be \(height, width\).* got \(32,\)"),
        ({"augment": "cutout"}, "`augment` must be a function, or one of none"),
        ({"last": "keep"}, "`last` must be one of fill, drop, got"),
        ({"views": 0}, "`views` must be at least 1, got 0"),
    ],
)
def test_pk_batches_invalid_arguments_raises(images, change, message):
    with pytest.raises(InputError, match=message):
        pk_batches(images, **{**PK, **change})


def test_image_batches_invalid_arguments_raises(images, tmp_path):
    with pytest.raises(InputError, match="`batch_size` must be at least 1, got 0"):
        image_batches(images, 0, SIZE)
    with pytest.raises(InputError, match=r"`images` must be at least 1, got 0\. Check"):
        image_batches(images[:0], 4, SIZE)
    with pytest.raises(InputError, match=r"` must be writable, got '"):
        image_batches(images, 4, SIZE, cache=images.path[0])


@pytest.mark.real
def test_image_batches_real_images_are_unchanged(real_data):
    folder = real_data / "data/market1501-mini/query"
    paths = sorted(folder.glob("*.jpg"))[:12]
    real = PersonImages(paths, np.repeat(np.arange(4), 3), None)
    (batch,) = image_batches(real, 12, (128, 64))
    expected = np.stack([np.asarray(Image.open(path), int) for path in paths])
    assert np.abs(batch.numpy() - expected).mean() < 2


def test_cache_write_in_second_thread_waits_and_fills_nothing(tmp_path):
    shape = (4, 8, 4, 3)
    file = tmp_path / "images"
    begun, go = threading.Event(), threading.Event()
    filled = []

    def chunks(who):
        filled.append(who)
        begun.set()
        go.wait(10)
        yield np.ones(shape, np.uint8)

    first = threading.Thread(target=caching.write, args=(file, chunks("first"), shape))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=caching.write, args=(file, chunks("second"), shape))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go.set()
    for thread in (first, second):
        thread.join(10)
    assert filled == ["first"]
    assert caching.complete(file, shape)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
