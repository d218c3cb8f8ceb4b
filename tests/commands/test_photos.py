"""Photos and undecodable files in all commands that take images."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import detection, scale
from keras_reid.cli.cluster import ClusterOptions, cluster
from keras_reid.cli.photos import PersonFinder
from keras_reid.detection.photos import CropFolder, Photos, is_photo, person_boxes
from keras_reid.errors import InputError

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))


def photo(path, persons, size=(500, 900)):
    """Save a gray picture with a rectangle of another color for each person, from left to right."""
    pixels = np.full((*size, 3), 128, np.uint8)
    for number in range(persons):
        left = 40 + number * 200
        pixels[100:400, left : left + 120] = COLORS[number]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def person(path, color=COLORS[0], size=(64, 32)):
    """Save an image of one person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], color).save(path)
    return str(path)


def detect(image):
    """Return a box for each color, in another order than from left to right."""
    boxes = []
    for color in reversed(COLORS):
        rows, columns = np.nonzero(np.abs(image.astype(int) - color).sum(-1) < 40)
        if len(rows):
            start = columns.min(), rows.min()
            boxes.append([*start, np.ptp(columns) + 1, np.ptp(rows) + 1])
    return np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 0.9)


@pytest.fixture
def detector(monkeypatch):
    """Replace the detector, and return the list of searched images."""
    searched = []

    def counting(image):
        searched.append(image.shape)
        return detect(image)

    monkeypatch.setattr(detection, "detector_of", lambda *names: counting)
    return searched


@pytest.fixture(scope="module")
def model(tiny_run):
    return f"--model={tiny_run / 'run'}"


# --- Which images are photos, and their persons


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 32), False),
        ((57, 32), True),
        ((720, 400), False),
        ((722, 401), True),
        ((58, 32), False),
    ],
)
def test_is_photo_aspect_below_1_8_or_side_above_400(tmp_path, size, expected):
    assert is_photo(person(tmp_path / "a.png", size=size)) is expected


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("auto", (60, 60), None),
        ("auto", (500, 500), 0),
        ("always", (60, 60), 0),
        ("never", (500, 500), None),
    ],
)
def test_photos_without_detection_small_image_is_kept(tmp_path, mode, size, expected):
    path = person(tmp_path / "a.png", (9, 9, 9), size)
    boxes = Photos(mode, lambda: detect).boxes(path)
    assert boxes is None if expected is None else len(boxes) == expected


def test_person_boxes_are_whole_inside_sorted_and_sure():
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[150.4, 10, 90, 80], [-5, 20.6, 40, 50], [60, 0, 20, 90], [90, 0, 5, 90]])
    found = person_boxes(image, lambda _: (boxes, np.array([0.9, 0.8, 0.49, 0.9])))
    assert found.tolist() == [[0, 21, 35, 50], [150, 10, 50, 80]]


def test_photos_missing_detector_raises_for_large_photos_only(tmp_path, caplog):
    def missing():
        raise InputError("no detector")

    photos = Photos("auto", missing)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert photos.boxes(person(tmp_path / "small.png", size=(60, 60))) is None
        assert photos.boxes(person(tmp_path / "other.png", size=(50, 60))) is None
    assert len(caplog.records) == 1
    with pytest.raises(InputError, match="no detector"):
        photos.boxes(photo(tmp_path / "large.png", 1))


def test_crop_folder_searches_same_content_once(tmp_path, detector):
    first, second = photo(tmp_path / "a.png", 2), photo(tmp_path / "b.png", 2)
    crops = CropFolder(tmp_path / "crops", Photos("auto", detection.detector_of))
    assert crops.names(first) == [f"{first}#1", f"{first}#2"]
    assert crops.names(second) == [f"{second}#1", f"{second}#2"]
    assert len(detector) == 1
    pixels = np.asarray(Image.open(CropFolder(tmp_path / "crops").file(f"{second}#2")))
    assert pixels.shape == (300, 120, 3)
    assert (pixels == COLORS[1]).all()


def test_finder_box_selects_person(tmp_path, detector):
    paths = [
        photo(tmp_path / "a.png", 3),
        photo(tmp_path / "b.png", 1),
        photo(tmp_path / "c.png", 2),
    ]
    finder = PersonFinder(Photos("auto", detection.detector_of), 3, str(tmp_path / "previews"))
    found = finder.find(paths, one=True)
    assert found.names.tolist() == [f"{paths[0]}#3", paths[1]]
    assert found.rows.tolist() == [0, 1]
    assert [*finder.skipped.several] == [paths[2]]


# --- Commands


def test_query_photo_searches_each_person(tmp_path, model, detector):
    for number, color in enumerate(COLORS[:3]):
        person(tmp_path / f"people/p{number}/1.png", color)
    photo(tmp_path / "photo.png", 3)
    flags = (model, "--gallery=file:known", "--detect=auto")
    assert within("search.py", *flags, "enrol", "people", cwd=tmp_path)[0] == 0
    code, out, _ = within("search.py", *flags, "query", "photo.png", cwd=tmp_path)
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("photo")] == [
        f"photo.png#{number}" for number in (1, 2, 3)
    ]
    flags = (*flags, "--out=q.html", "query", "photo.png")
    assert within("search.py", *flags, cwd=tmp_path)[0] == 0
    page = (tmp_path / "q.html").read_text()
    assert page.count('class="photo"') == 3
    assert "photo.png#2" in page
    assert "keras_reid-" not in page


def test_enrol_photos_crops_one_and_skips_several(tmp_path, model, detector, caplog):
    photo(tmp_path / "people/anna/1.png", 1)
    photo(tmp_path / "people/anna/2.png", 2)
    photo(tmp_path / "people/anna/3.png", 0)
    person(tmp_path / "people/bob/1.png")
    flags = (model, "--gallery=file:known", "enrol", "people")
    code, out, _ = within("search.py", *flags, cwd=tmp_path)
    assert code == 0
    assert "enrolled 2 images" in out
    assert "no person found in 1 photo" in caplog.text
    assert "skipped 1 photo of several persons; --box=N selects one" in caplog.text
    (preview,) = (tmp_path / "previews").iterdir()
    with Image.open(preview) as picture:
        assert picture.height == 480
    code, out, _ = within("search.py", "--box=2", *flags, cwd=tmp_path)
    assert "enrolled 1 image," in out


def test_verify_several_persons_needs_box(tmp_path, model, detector, caplog):
    photo(tmp_path / "a.png", 2)
    person(tmp_path / "b.png", COLORS[1])
    assert within("search.py", model, "verify", "a.png", "b.png", cwd=tmp_path)[0] == 1
    assert "a.png (preview: previews/a-" in caplog.text
    distances = []
    for number in (1, 2):
        flags = (model, f"--box={number}", "--format=json", "verify", "a.png", "b.png")
        out = within("search.py", *flags, cwd=tmp_path)[1]
        distances.append(json.loads(out)["pairs"][0]["distance"])
    assert distances[1] < 0.05 < distances[0]
    flags = (model, "--box=3", "verify", "a.png", "b.png")
    code, _, err = within("search.py", *flags, cwd=tmp_path)
    assert code == 1
    assert "must show" in err


def test_cluster_photos_has_row_for_each_person(tmp_path, tiny_run, detector):
    photo(tmp_path / "photos/x/a.png", 3)
    person(tmp_path / "photos/b.png")
    options = ClusterOptions(
        model=str(tiny_run / "run"),
        images=str(tmp_path / "photos"),
        min_samples=1,
        out=str(tmp_path / "out"),
    )
    names = cluster(options).path.tolist()
    assert sorted(Path(name).name for name in names) == ["a.png#1", "a.png#2", "a.png#3", "b.png"]
    copied = {path.name[7:] for path in (tmp_path / "out").glob("*/*")}
    assert copied == {"a_1.png", "a_2.png", "a_3.png", "b.png"}


def test_embed_photos_has_row_for_each_person_and_resumes(tmp_path, model, detector, caplog):
    pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
    file = photo(tmp_path / "photos/a.png", 2)
    photo(tmp_path / "photos/none.png", 0)
    person(tmp_path / "photos/b.png")
    flags = (model, "--images=photos", "--out=out")
    code, out, _ = within("embed.py", *flags, cwd=tmp_path)
    assert (code, len(detector)) == (0, 2)
    assert "no person found in 1 photo" in caplog.text
    assert "3 images in 1 file" in out
    (before,) = scale.Shards(tmp_path / "out")
    assert before.path.tolist() == [f"{file}#1", f"{file}#2", str(tmp_path / "photos/b.png")]
    assert np.abs(before.embedding[0] - before.embedding[1]).max() > 0.01
    photo(tmp_path / "photos/a.png", 1)
    assert within("embed.py", *flags, cwd=tmp_path)[0] == 0
    assert len(detector) == 3
    after = scale.Shards(tmp_path / "out").mapped()
    assert sorted(after.path.tolist()) == [file, str(tmp_path / "photos/b.png")]
    np.testing.assert_allclose(
        after.features["embedding"][after.path == file][0], before.embedding[0], atol=1e-5
    )


def test_embed_other_detection_in_same_folder_raises(tmp_path, model, detector):
    pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
    person(tmp_path / "photos/b.png")
    flags = (model, "--images=photos", "--out=out")
    assert within("embed.py", *flags, cwd=tmp_path)[0] == 0
    code, _, err = within("embed.py", *flags, "--detect=always", cwd=tmp_path)
    assert code == 1
    assert "--detect must be one of auto, got 'always'" in err


def test_crop_writes_file_for_each_person(tmp_path, detector):
    photo(tmp_path / "photos/x/a.png", 2)
    photo(tmp_path / "photos/x/a.jpg", 1)
    person(tmp_path / "photos/b.png")
    code, out, _ = within("crop.py", "photos", "--out=crops", cwd=tmp_path)
    assert code == 0
    assert "4 persons of 3 images in crops" in out
    files = sorted(
        str(path.relative_to(tmp_path / "crops")) for path in (tmp_path / "crops").rglob("*.*")
    )
    assert files == ["b.png", "x/a.png", "x/a_1.png", "x/a_2.png"]
    pixels = np.asarray(Image.open(tmp_path / "crops/x/a_2.png"))
    assert (pixels == COLORS[1]).all()


# --- Files that do not decode

COMMANDS = {
    "query": (
        "search.py",
        "--gallery=file:known",
        "query",
        *(f"images/p/{n}.png" for n in range(3)),
    ),
    "enrol": ("search.py", "--gallery=file:new", "enrol", "images"),
    "verify": ("search.py", "verify", "images/p", "images/p"),
    "cluster": ("cluster.py", "--images=images", "--min_samples=1", "--csv=out.csv"),
    "embed": ("embed.py", "--images=images", "--out=out"),
    "crop": ("crop.py", "images", "--out=out"),
}


@pytest.fixture
def broken(tmp_path, model):
    """Return a folder with two good images and a damaged one, and a gallery."""
    for number in (0, 2):
        person(tmp_path / f"images/p/{number}.png", COLORS[number])
    (tmp_path / "images/p/1.png").write_bytes(b"no image")
    person(tmp_path / "people/p/1.png")
    flags = (model, "--gallery=file:known", "enrol", "people")
    assert within("search.py", *flags, cwd=tmp_path)[0] == 0
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_unreadable_image_is_listed_and_others_are_processed(broken, model, name):
    program, *words = COMMANDS[name]
    flags = () if name == "crop" else (model,)
    code, out, err = within(program, *flags, *words, cwd=broken)
    assert code == 1
    assert "images may be unreadable, got 1 of 3: " in err
    assert "images/p/1.png (another type of file)" in err
    assert {
        "query": "images/p/2.png:",
        "enrol": "enrolled 2 images",
        "verify": "images/p/2.png  images/p/0.png",
        "cluster": "2 images",
        "embed": "3 images in 1 file",
        "crop": "2 persons of 3 images",
    }[name] in out


@pytest.mark.parametrize("name", COMMANDS)
def test_strict_stops_before_the_start(broken, model, name):
    program, *words = COMMANDS[name]
    flags = ("--strict",) if name == "crop" else ("--strict", model)
    before = sorted(broken.iterdir())
    code, out, err = within(program, *flags, *words, cwd=broken)
    assert code == 1
    assert "With --strict, all images must be readable, got 1 unreadable of 3" in err
    assert not out
    assert [path for path in sorted(broken.iterdir()) if path.name != "new.rows"] == before


def test_few_unreadable_images_give_warning_only(tmp_path, detector, caplog):
    for number in range(100):
        person(tmp_path / f"images/{number}.png")
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    code, out, _ = within("crop.py", "images", "--out=out", cwd=tmp_path)
    assert code == 0
    assert "100 persons of 101 images" in out
    assert "skipped 1 unreadable image: images/broken.png (another type of file)" in caplog.text
