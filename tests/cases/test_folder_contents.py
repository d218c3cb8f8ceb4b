"""The images in a folder are the same files for all readers and commands."""

import logging
import os

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data
from keras_reid.data.video import Video
from keras_reid.errors import InputError
from keras_reid.scale.listing import listed

SUFFIXES = ("jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "JPG")
SYSTEM = ("._0.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Icon\r")


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 32), (200, 30, 30)).save(path)
    return path


def names(paths):
    return sorted(os.path.basename(path) for path in paths)


@pytest.fixture
def crops(tmp_path):
    """Return a folder of 9 images of anna, in each format, and what systems leave in folders."""
    folder = tmp_path / "crops"
    for number, suffix in enumerate(SUFFIXES):
        picture(folder / f"anna/{number}.{suffix}")
    for at in (folder, folder / "anna"):
        for name in SYSTEM:
            (at / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    for name in ("__MACOSX/anna", "anna/@eaDir", "$RECYCLE.BIN", "anna/.ipynb_checkpoints"):
        picture(folder / name / "0.jpg")
    return folder


def of_load(folder):
    return data.load("folder", folder).train.path


def of_unlabeled(folder):
    return data.unlabeled(folder).path


def of_listing(folder):
    return [image.path for image in listed(folder)]


def of_pattern(folder):
    return [image.path for image in listed(f"{folder}/**/*")]


def of_video(folder):
    return Video(folder / "anna")._files


@pytest.mark.parametrize("read", [of_load, of_unlabeled, of_listing, of_pattern, of_video])
def test_readers_system_files_and_all_formats_list_the_images(read, crops, caplog):
    found = [str(path) for path in read(crops)]
    assert found == [str(crops / f"anna/{i}.{suffix}") for i, suffix in enumerate(SUFFIXES)]
    assert not caplog.records
    assert data.decodable(np.array(found)).all()


@pytest.mark.parametrize("read", [of_unlabeled, of_listing, of_pattern])
def test_readers_links_are_followed_and_each_folder_is_read_once(read, tmp_path):
    crops = tmp_path / "crops"
    picture(crops / "a/1.jpg")
    picture(crops / "b/2.jpg")
    picture(tmp_path / "elsewhere/deep/3.jpg")
    (crops / "c").symlink_to(tmp_path / "elsewhere")
    (crops / "4.jpg").symlink_to(picture(tmp_path / "4.jpg"))
    (crops / "a/up").symlink_to(crops)
    (crops / "a/b").symlink_to(crops / "b")
    (crops / "b/a").symlink_to(crops / "a")
    (crops / "b/self").symlink_to("self")
    found = read(crops)
    assert names(found) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert str(crops / "b/2.jpg") in map(str, found)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/*.jpg", ["1.jpg", "2.jpg"]),
        ("**/*.jpg", ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]),
        ("**/cam1/*", ["1.jpg", "3.png", "3.jpg"]),
        ("cam?/**/3.*", ["3.jpg", "3.png"]),
        ("cam1/**", ["1.jpg", "3.jpg", "3.png"]),
        ("[ab]/**/*.jpg", []),
    ],
)
def test_listed_pattern_returns_matching_images(pattern, found, tmp_path, caplog):
    for name in ("0.jpg", "cam1/1.jpg", "cam2/2.jpg", "cam1/x/cam1/3.jpg", "cam1/x/cam1/3.png"):
        picture(tmp_path / name)
    (tmp_path / "cam2/notes.txt").touch()
    assert names(image.path for image in listed(tmp_path / pattern)) == sorted(found)
    assert not caplog.records


def test_load_folder_linked_identities_are_read(tmp_path):
    picture(tmp_path / "archive/berta/1.jpg")
    picture(tmp_path / "crops/anna/1.jpg")
    (tmp_path / "crops/anna/2.jpg").symlink_to(tmp_path / "archive/berta/1.jpg")
    (tmp_path / "crops/berta").symlink_to(tmp_path / "archive/berta")
    train = data.load("folder", tmp_path / "crops").train
    assert train.identity.tolist() == ["anna", "anna", "berta"]


def test_load_folder_misplaced_images_are_listed_in_one_error(tmp_path):
    for name in ("anna", "berta"):
        picture(tmp_path / f"{name}/1.jpg")
    picture(tmp_path / "berta/more/2.jpg")
    picture(tmp_path / "stray.png")
    (tmp_path / "anna/notes.txt").touch()
    with pytest.raises(InputError, match=r"hold folders of images only, got ") as error:
        data.load("folder", tmp_path)
    for other in ("berta/more", "stray.png"):
        assert str(tmp_path / other) in str(error.value)
    assert "notes" not in str(error.value)


def test_load_folder_other_files_are_ignored_and_broken_links_are_images(tmp_path):
    for name in ("anna", "berta"):
        picture(tmp_path / f"{name}/1.jpg")
        (tmp_path / f"{name}/notes.txt").touch()
    (tmp_path / "README").touch()
    (tmp_path / "anna/gone.jpg").symlink_to("nowhere")
    paths = data.load("folder", tmp_path).train.path
    assert names(paths) == ["1.jpg", "1.jpg", "gone.jpg"]
    assert data.usable(paths).sum() == 2
    assert data.unfit(tmp_path / "anna/gone.jpg") == "a missing file"


def test_load_market_other_files_are_ignored(tmp_path):
    picture(tmp_path / "bounding_box_train/0001_c1s1_000001_00.jpg")
    (tmp_path / "bounding_box_train/a.txt").touch()
    assert len(data.load("market1501", tmp_path).train) == 1
    (tmp_path / "bounding_box_train/more").mkdir()
    with pytest.raises(InputError, match=r"hold image files only, got .*more\. Move them away"):
        data.load("market1501", tmp_path)


@pytest.mark.parametrize("read", [of_unlabeled, of_listing, of_pattern])
def test_walk_other_files_are_ignored(read, crops, caplog):
    for other in ("notes.txt", "anna/clip.mp4", "anna/plan.pdf"):
        (crops / other).touch()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert len(read(crops)) == len(SUFFIXES)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "place"), [("mars", "bbox_train"), ("ilids-vid", "sequences/cam1")]
)
def test_load_tracklets_stray_file_is_named(name, place, tmp_path):
    for folder in ("bbox_train/0001", "bbox_test/0001", "sequences/cam1/person001"):
        (tmp_path / folder).mkdir(parents=True)
    picture(tmp_path / place / "stray.jpg")
    with pytest.raises(InputError, match=r"must hold folders only, got .*stray\.jpg\. Move"):
        data.load(name, tmp_path)


def test_cluster_folder_of_system_files_raises(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops/._1.jpg").touch()
    code, _, err = within("cluster.py", "--images=crops", cwd=tmp_path)
    assert code == 1
    assert "crops` must contain" in err
