"""Image lists, the image decoder, hold-out splits and copies in the Market-1501 layout."""

import os
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_reid import data
from keras_reid.data import files
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.images import PersonImages
from keras_reid.data.validation import decodable
from keras_reid.errors import InputError
from keras_reid.pixels import decode, graph_decode, graph_decode_upright


def images(identity, camera=None, path=None):
    path = [f"{row}.jpg" for row in range(len(identity))] if path is None else path
    return PersonImages(path, identity, camera)


def picture(path, gray=0, size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(gray).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_person_images_sequences_become_arrays(tmp_path):
    columns = PersonImages([tmp_path / "a.jpg", "b.jpg"], (7, 8), np.array([1, 2], np.uint8))
    assert columns.path.tolist() == [str(tmp_path / "a.jpg"), "b.jpg"]
    assert columns.identity.dtype == columns.camera.dtype == np.int64
    assert len(columns) == 2


def test_person_images_index_slice_array_or_mask_selects_rows():
    columns = images(["b", "a", "b"], [3, 1, 2])
    for rows in (1, slice(1, 2), [1], np.array([False, True, False])):
        row = columns[rows]
        assert (row.path.tolist(), row.identity.tolist()) == (["1.jpg"], ["a"])
        assert row.camera.tolist() == [1]
    assert images([1, 2])[:1].camera is None
    assert len(columns[np.zeros(3, bool)]) == 0
    with pytest.raises(IndexError):
        columns[3]


@pytest.mark.parametrize("labels", [[30, 10, 30, 20], ["q", "a", "q", "b"]])
def test_person_images_classes_index_is_contiguous(labels):
    names, index = images(labels).classes()
    assert names[index].tolist() == labels
    assert index.dtype == np.int32
    assert index.tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], [1], None), r"`identity` must have one entry per image, got shape \(1,\) for 0"),
        ((["a"], [1], [1, 2]), r"`camera` must have one entry per image, got shape \(2,\) for 1"),
        ((["a"], [1.5], None), "`identity` must be integers or text, got "),
        ((["a"], [None], None), "`identity` must be integers or text, got None"),
        ((["a"], [1], [0.5]), "`camera` must be integers or text, got "),
    ],
)
def test_person_images_invalid_columns_raises(columns, message):
    with pytest.raises(InputError, match=message):
        PersonImages(*columns)


def test_person_images_repr_is_single_line():
    assert repr(images([1, 1, 2], [1, 2, 2])) == "PersonImages(3 images, 2 identities, 2 cameras)"
    assert repr(images([1])) == "PersonImages(1 image, 1 identity, no cameras)"


def test_reid_dataset_parts_omits_missing():
    assert list(ReidDataset("d", None, images([1]), images([1])).parts()) == ["query", "gallery"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_decode_jpeg_png_and_bmp_matches_pillow(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}")
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    mapped = tf.data.Dataset.from_tensors(path.read_bytes()).map(graph_decode)
    for pixels in (decode(path), mapped.get_single_element().numpy()):
        assert pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels, expected, atol=1 if suffix == "jpg" else 0)


def test_decode_gray_png_named_jpg_returns_three_channels(tmp_path):
    gray = tmp_path / "gray.jpg"
    Image.new("L", (8, 16), 77).save(gray, format="PNG")
    assert np.unique(decode(gray)).tolist() == [77]
    assert decode(gray).shape == (16, 8, 3)


@pytest.fixture
def broken(tmp_path):
    """Write five files that are not images."""
    whole = picture(tmp_path / "whole.jpg").read_bytes()
    png = picture(tmp_path / "whole.png").read_bytes()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "endless.jpg": whole[:-2],
        "truncated.png": png[: len(png) // 2],
        "empty.jpg": b"",
        "text.jpg": b"not an image\n" * 9,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in (*contents, "missing.jpg")]


def test_decodable_broken_files_returns_false(tmp_path, broken):
    good = [str(tmp_path / "whole.jpg"), str(tmp_path / "whole.png")]
    mask = decodable(np.array([good[0], *broken, good[1]]))
    assert mask.tolist() == [True, *[False] * len(broken), True]
    assert decodable(np.array([], str)).tolist() == []


def test_readable_broken_file_is_skipped_and_logged(tmp_path, broken, caplog):
    good = str(tmp_path / "whole.jpg")
    columns = images([5, 6, 7], [1, 2, 3], [good, broken[0], good])
    with caplog.at_level("WARNING", logger="absl"):
        kept = data.readable(columns, max_unreadable=0.4)
    assert (kept.identity.tolist(), kept.camera.tolist()) == ([5, 7], [1, 3])
    assert [record.getMessage() for record in caplog.records] == [
        f"skipping 1 unreadable image: {broken[0]}"
    ]


def test_readable_intact_images_returns_all(tmp_path, caplog):
    columns = images([5], path=[picture(tmp_path / "a.jpg")])
    whole = data.readable(columns)
    assert whole.path.tolist() == columns.path.tolist()
    assert data.readable(whole) is whole  # which opens no file again
    assert not caplog.records


def test_readable_above_max_unreadable_raises(tmp_path, broken):
    good = str(tmp_path / "whole.jpg")
    columns = images(range(200), path=[good] * 197 + broken[:3])
    assert len(data.readable(columns, max_unreadable=0.015)) == 197
    with pytest.raises(
        InputError, match=r"except for at most 1.00%, got 3 unreadable of 200.*truncated.jpg"
    ):
        data.readable(columns)
    with pytest.raises(
        InputError, match=r"got 6 unreadable of 6\. Restore or remove .* and 1 more"
    ):
        data.readable(images(range(6), path=broken), max_unreadable=1.0)
    with pytest.raises(InputError, match=r"`max_unreadable` must be in \[0, 1\], got 1.5"):
        data.readable(columns, max_unreadable=1.5)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(9))
def test_decode_exif_orientation_returns_upright_image(tmp_path, orientation, endian):
    """Orientations of Pillow; 0 means no tag."""
    blocks = np.random.default_rng(0).integers(0, 256, (4, 2, 3))
    pixels = np.kron(blocks, np.ones((16, 16, 1))).astype(np.uint8)
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "maker"
    if orientation:
        exif[0x0112] = orientation
    file = tmp_path / "x.jpg"
    Image.fromarray(pixels).save(file, exif=exif.tobytes(), quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)), int)
    assert (upright.shape[0] == 32) == (orientation >= 5)
    np.testing.assert_array_equal(decode(file), upright)
    in_graph = graph_decode_upright(file.read_bytes(), max(1, orientation))
    np.testing.assert_allclose(in_graph, upright, atol=1)


@pytest.mark.parametrize("colors", [2, 16, 200, 256])
@pytest.mark.parametrize("suffix", ["bmp", "png"])
def test_decode_palette_image_returns_rgb(tmp_path, suffix, colors):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    image = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=colors)
    image.save(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(decode(tmp_path / f"x.{suffix}"), image.convert("RGB"))


def test_unlabeled_unreadable_folder_raises_with_path(tmp_path, monkeypatch):
    picture(tmp_path / "open/a.jpg")
    picture(tmp_path / "closed/b.jpg")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(
        InputError, match=r"closed` must be a readable folder, got 'Permission denied'"
    ):
        data.unlabeled(tmp_path)


def test_person_images_non_utf8_path_raises():
    with pytest.raises(InputError, match=r"must be text in UTF-8.*caf"):
        images([1], path=["caf\udce9.jpg"])


def seen(*sightings):
    """A data set of training images (identity, camera)."""
    identity, camera = zip(*sightings, strict=True)
    return ReidDataset("own", images(list(identity), list(camera)), None, None)


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3)), min_size=12, max_size=60),
    st.integers(0, 9),
)
def test_hold_out_queries_have_match_in_other_camera(sightings, seed):
    try:
        held = seen(*sightings).hold_out(0.5, seed)
    except InputError as error:
        assert "holds out at least two identities" in str(error)  # noqa: PT017
        return
    again = seen(*sightings).hold_out(0.5, seed)
    for part, images_ in held.parts().items():
        assert images_.path.tolist() == again.parts()[part].path.tolist()
    paths = [path for images_ in held.parts().values() for path in images_.path.tolist()]
    assert len(set(paths)) == len(paths) == len(sightings)
    trained, asked = set(held.train.identity.tolist()), set(held.query.identity.tolist())
    assert not trained & asked
    assert asked == set(held.gallery.identity.tolist())
    for identity, camera in zip(held.query.identity, held.query.camera, strict=True):
        mates = held.gallery.camera[held.gallery.identity == identity]
        assert (mates != camera).any()
    pairs = [*zip(held.query.identity.tolist(), held.query.camera.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs)


def test_hold_out_without_cameras_takes_single_query_per_identity():
    whole = ReidDataset("own", images([1, 1, 1, 2, 2, 3, 3, 4, 4, 5]), None, None)
    held = whole.hold_out(0.5)
    assert len(held.query) == len(np.unique(held.query.identity)) == 2
    assert 5 in held.train.identity  # of one image


def test_hold_out_invalid_input_raises():
    whole = seen((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2))
    held = whole.hold_out(0.5)
    with pytest.raises(InputError, match=r"has train, query, gallery\. Omit `holdout`"):
        held.hold_out(0.5)
    with pytest.raises(InputError, match=r"`fraction` must be in \(0, 1\)"):
        whole.hold_out(1.0)
    with pytest.raises(InputError, match="holds out at least two identities"):
        seen((1, 1), (1, 2), (2, 1), (2, 2)).hold_out(0.5)


def test_all_to_train_omits_distractors():
    gallery = replace(images([2, 0, 3], [2, 1, 1]), distractor=[False, False, True])
    whole = ReidDataset("own", images([1, 1], [1, 2]), images([2], [1]), gallery).all_to_train()
    assert whole.train.identity.tolist() == [1, 1, 2, 2, 0]
    assert (whole.query, whole.gallery) == (None, None)


def test_decodable_too_many_pixels_returns_false(tmp_path, monkeypatch):
    Image.new("RGB", (400, 300)).save(tmp_path / "large.bmp")
    Image.new("RGB", (40, 30)).save(tmp_path / "small.bmp")
    paths = np.array([str(tmp_path / name) for name in ("large.bmp", "small.bmp")])
    assert decodable(paths).tolist() == [True, True]
    monkeypatch.setattr(files, "MOST_PIXELS", 100_000)
    monkeypatch.setattr(files, "SMALL", 1000)
    assert decodable(paths).tolist() == [False, True]
