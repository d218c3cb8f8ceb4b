"""Dataset readers: a small example of every layout, and broken variants."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_reid import data
from keras_reid.data.validation import decodable
from keras_reid.errors import InputError

MARKET = {
    "train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000001_01.jpg", "-1_c1s1_000000_00.jpg"],
    "query": ["0003_c1s1_000051_00.jpg"],
    "gallery": [
        "-1_c3s1_000000_00.jpg",
        "0000_c6s1_000000_00.jpg",
        "0003_c5s1_000000_00.jpg",
    ],
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 4)).save(path)
    return path


def market(root, parts=("train", "query", "gallery")):
    for part in parts:
        for name in MARKET[part]:
            picture(root / FOLDERS[part] / name)
    return root


def columns(images):
    cameras = None if images.camera is None else images.camera.tolist()
    return images.identity.tolist(), cameras


def names(images):
    return [path.rsplit("/", 1)[1] for path in images.path]


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("market1501", ""),
        ("market1501", "Market-1501-v15.09.15"),
        ("dukemtmc-reid", ""),
        ("dukemtmc-reid", "DukeMTMC-reID"),
        ("cuhk03", ""),
        ("cuhk03", "detected"),
        ("cuhk03", "CUHK03-NP/detected"),
        ("synthetic", ""),
    ],
)
def test_load_market_layout_returns_all_parts(tmp_path, name, archive):
    market(tmp_path / archive)
    dataset = data.load(name, str(tmp_path))
    assert dataset.name == name
    assert columns(dataset.train) == ([2, 2], [1, 2])
    assert columns(dataset.query) == ([3], [1])
    assert columns(dataset.gallery) == ([0, 3], [6, 5])  # junk dropped, the distractor kept
    assert decodable(dataset.gallery.path).all()


def test_load_dukemtmc_and_cuhk03_file_names_are_parsed(tmp_path):
    picture(tmp_path / "bounding_box_train/0001_c2_f0046182.jpg")
    picture(tmp_path / "bounding_box_train/1467_c12_0.PNG")
    assert columns(data.load("dukemtmc-reid", tmp_path).train) == ([1, 1467], [2, 12])


def test_load_market_clutter_files_are_ignored(tmp_path):
    for name in ("Thumbs.db", ".DS_Store", "._0002_c1.jpg"):
        picture(tmp_path / "query/0001_c1.jpg").with_name(name).write_bytes(b"")
    market(tmp_path, ["gallery"])
    assert names(data.load("market1501", tmp_path).query) == ["0001_c1.jpg"]


def test_load_market_missing_parts_are_none(tmp_path):
    test_only = data.load("market1501", market(tmp_path / "test", ["query", "gallery"]))
    assert test_only.train is None
    assert len(test_only.query) == 1
    train_only = data.load("market1501", market(tmp_path / "train", ["train"]))
    assert (train_only.query, train_only.gallery) == (None, None)


def test_load_cuhk03_boxes_labeled_selects_folder(tmp_path):
    market(tmp_path / "labeled")
    assert len(data.load("cuhk03", tmp_path, boxes="labeled").train) == 2
    with pytest.raises(InputError, match="`boxes` must be one of detected, labeled, got 'hand'"):
        data.load("cuhk03", tmp_path, boxes="hand")


def test_load_unknown_name_raises_with_known_names():
    with pytest.raises(InputError, match=f"one of {', '.join(data.READERS)}, got 'market'"):
        data.load("market", ".")


def test_load_missing_root_raises(tmp_path):
    for name in ("market1501", "msmt17", "cuhk03", "folder"):
        with pytest.raises(
            InputError, match=f"nowhere` must hold .*, got none. Check the path to {name}"
        ):
            data.load(name, tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"nowhere.csv` must be a table in UTF-8, got 'No such file"
    ):
        data.load("csv", tmp_path / "nowhere.csv")
    for name in ("viper", "prid2011"):
        with pytest.raises(
            InputError, match=r"nowhere.*must be a readable folder, got 'No such file"
        ):
            data.load(name, tmp_path / "nowhere")


def test_load_root_with_other_layout_raises(tmp_path):
    picture(tmp_path / "a.jpg")
    with pytest.raises(
        InputError, match=r"must hold bounding_box_train, query, bounding_box_test, got none"
    ):
        data.load("market1501", tmp_path)
    with pytest.raises(
        InputError, match=r"must hold list_train.txt, list_query.txt, list_gallery.txt"
    ):
        data.load("msmt17", tmp_path)


@pytest.mark.parametrize(("part", "other"), [("query", "gallery"), ("gallery", "query")])
def test_load_query_or_gallery_missing_raises(tmp_path, part, other):
    market(tmp_path, ["train", part])
    with pytest.raises(InputError, match=f"must have both query and gallery, got .*{part}"):
        data.load("market1501", tmp_path)


def test_load_empty_part_raises(tmp_path):
    market(tmp_path, ["query", "gallery"])
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(InputError, match=r"bounding_box_train` must contain images, got none"):
        data.load("market1501", tmp_path)


@pytest.mark.parametrize("name", ["holiday.jpg", "x0001_c1.jpg"])
def test_load_unparsable_file_name_raises(tmp_path, name):
    picture(market(tmp_path) / "query" / name)
    with pytest.raises(InputError, match=f"query` must hold names such as 0002_c1s1.*, got {name}"):
        data.load("market1501", tmp_path)


MSMT17 = {
    "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_14_0303noon_0_0.jpg 1"],
    "val": ["0001/0001_004_12_0303morning_1_1.jpg 1"],
    "query": ["0000/0000_001_02_0303morning_0_0.jpg 0"],
    "gallery": ["0000/0000_002_03_0303morning_0_0.jpg 0", "0002/0002_0_15_0302_0_0_ex.jpg 2"],
}


def msmt17(root, train, test, parts=tuple(MSMT17)):
    for part in parts:
        (root / f"list_{part}.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"list_{part}.txt").write_text("\n".join(MSMT17[part]) + "\n")
        for line in MSMT17[part]:
            picture(root / (train if part in ("train", "val") else test) / line.split()[0])
    return root


@pytest.mark.parametrize("archive", ["", "MSMT17_V1", "MSMT17_V2"])
@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("mask_train_v2", "mask_test_v2")], ids=["V1", "V2"]
)
def test_load_msmt17_v1_and_v2_returns_all_parts(tmp_path, archive, train, test):
    msmt17(tmp_path / archive, train, test)
    dataset = data.load("msmt17", tmp_path)
    assert columns(dataset.train) == ([0, 1, 1], [1, 14, 12])
    assert columns(dataset.query) == ([1041], [2])
    assert columns(dataset.gallery) == ([1041, 1043], [3, 15])
    assert data.check(dataset).shared == []


def test_load_msmt17_without_training_lists_has_no_train(tmp_path):
    dataset = data.load("msmt17", msmt17(tmp_path, "train", "test", ["query", "gallery"]))
    assert dataset.train is None
    assert len(dataset.gallery) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "0009/0009_000_01_0303noon_0_0.jpg 9",
            "must name existing files, got .*train/0009/0009_0",
        ),
        (
            "0009/0009_000_01_0303noon_0_0.jpg",
            "must be 'person/person_shot_camera_….jpg label', got",
        ),
        ("0009/portrait.jpg 9", "must be .* got '0009/portrait.jpg 9'"),
    ],
)
def test_load_msmt17_invalid_list_line_raises(tmp_path, line, message):
    root = msmt17(tmp_path, "train", "test")
    with (root / "list_train.txt").open("a") as listing:
        listing.write(line + "\n")
    with pytest.raises(InputError, match=f"list_train.txt, line 3` {message}"):
        data.load("msmt17", root)


def test_load_msmt17_empty_list_raises(tmp_path):
    (msmt17(tmp_path, "train", "test") / "list_query.txt").write_text("")
    with pytest.raises(InputError, match=r"list_query.txt` must contain images, got none"):
        data.load("msmt17", tmp_path)


CUHK03 = ["1_001_1_01.png", "1_001_2_06.png", "2_003_1_01.png", "2_003_2_10.png"]


def cuhk03(root, boxes="detected", leave_out=()):
    savemat = pytest.importorskip("scipy.io").savemat
    for name in CUHK03:
        picture(root / f"images_{boxes}" / name)
    split = {
        "filelist": np.array([[name] for name in CUHK03], dtype=object),
        "labels": np.array([[1], [1], [770], [770]], np.uint16),
        "train_idx": np.array([[1], [2]], np.uint16),
        "query_idx": np.array([[3]], np.uint16),
        "gallery_idx": np.array([[4]], np.uint16),
    }
    kept = {key: value for key, value in split.items() if key not in leave_out}
    savemat(root / f"cuhk03_new_protocol_config_{boxes}.mat", kept)
    return root


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_load_cuhk03_matlab_split_returns_all_parts(tmp_path, boxes):
    dataset = data.load("cuhk03", cuhk03(tmp_path, boxes), boxes=boxes)
    assert columns(dataset.train) == ([1, 1], [1, 2])
    assert columns(dataset.query) == ([770], [1])
    assert columns(dataset.gallery) == ([770], [2])
    assert names(dataset.gallery) == ["2_003_2_10.png"]
    assert f"images_{boxes}" in dataset.gallery.path[0]


def test_load_cuhk03_missing_image_or_key_raises(tmp_path):
    root = cuhk03(tmp_path)
    (root / "images_detected" / CUHK03[0]).unlink()
    with pytest.raises(
        InputError, match=r"_detected.mat` must name existing files, got .*1_001_1_01.png"
    ):
        data.load("cuhk03", root)
    with pytest.raises(InputError, match=r"must contain filelist, labels, .* got no labels"):
        data.load("cuhk03", cuhk03(tmp_path / "keyless", leave_out=["labels"]))


@pytest.mark.parametrize("content", [b"", b"no matrix at all, whatever its suffix says\n" * 9])
def test_load_cuhk03_non_matlab_file_raises(tmp_path, content):
    pytest.importorskip("scipy.io")
    (tmp_path / "cuhk03_new_protocol_config_detected.mat").write_bytes(content)
    with pytest.raises(
        InputError, match=r"_detected.mat` must be a MATLAB file of version 7 or old"
    ):
        data.load("cuhk03", tmp_path)


@pytest.mark.parametrize("archive", ["", "VIPeR"])
def test_load_viper_splits_identities_by_seed(tmp_path, archive):
    for person in range(10):
        picture(tmp_path / archive / f"cam_a/{person:03d}_45.bmp")
        picture(tmp_path / archive / f"cam_b/{person:03d}_135.bmp")
    dataset = data.load("viper", tmp_path)
    train, query, gallery = (columns(images) for images in dataset.parts().values())
    assert len(set(train[0])) == 5
    assert train[1] == [1] * 5 + [2] * 5
    assert set(train[0]) | set(query[0]) == set(range(10))
    assert query[0] == gallery[0]
    assert (query[1], gallery[1]) == ([1] * 5, [2] * 5)
    assert data.check(dataset).ok is False  # the tiny images are all alike: duplicates
    assert data.check(dataset).shared == data.check(dataset).unmatched == []

    again, other = data.load("viper", tmp_path, seed=0), data.load("viper", tmp_path, seed=1)
    assert columns(again.train) == train
    assert columns(other.train) != train


@pytest.mark.parametrize("archive", ["", "single_shot", "prid_2011/single_shot"])
def test_load_prid2011_splits_shared_identities(tmp_path, archive):
    for person in (1, 2, 3, 4, 201, 300):
        picture(tmp_path / archive / f"cam_a/person_{person:04d}.png")
    for person in (1, 2, 3, 4, 201, 749):
        picture(tmp_path / archive / f"cam_b/person_{person:04d}.png")
    dataset = data.load("prid2011", tmp_path, seed=3)
    train, query, gallery = (set(images.identity.tolist()) for images in dataset.parts().values())
    assert (len(train), len(query)) == (2, 2)
    assert train | query == {1, 2, 3, 4}  # 201 is another person in either camera
    assert gallery == query | {201, 749}
    assert set(dataset.gallery.camera.tolist()) == {2}


def test_load_viper_broken_folders_raises(tmp_path):
    picture(tmp_path / "cam_a/001_45.bmp")
    with pytest.raises(InputError, match=r"cam_b` must be a readable folder"):
        data.load("viper", tmp_path)
    picture(tmp_path / "cam_b/002_45.bmp")
    with pytest.raises(
        InputError, match=r"must hold at least two persons with images in both cameras, got 0"
    ):
        data.load("viper", tmp_path)
    picture(tmp_path / "cam_b/portrait.bmp")
    with pytest.raises(
        InputError, match=r"cam_b` must hold names such as .*, got portrait.bmp\. Rename"
    ):
        data.load("viper", tmp_path)


def table(root, text, files=("a.jpg", "sub/b.jpg", "c.jpg", "d.jpg")):
    for name in files:
        picture(root / name)
    (root / "people.csv").write_text(text, encoding="utf-8")
    return root / "people.csv"


def test_load_csv_without_split_is_all_train(tmp_path):
    path = table(
        tmp_path,
        "identity,camera,path,note\n7,1,a.jpg,x\n -1 ,1,c.jpg,junk\n12, 2,sub/b.jpg,\n",
    )
    for root in (path, tmp_path):
        dataset = data.load("csv", root)
        assert columns(dataset.train) == (["7", "12"], [1, 2])
        assert dataset.train.path.tolist() == [str(tmp_path / "a.jpg"), str(tmp_path / "sub/b.jpg")]
        assert (dataset.query, dataset.gallery) == (None, None)


def test_load_csv_split_column_and_text_identities_are_read(tmp_path):
    absolute = picture(tmp_path / "elsewhere/e.jpg")
    path = table(
        tmp_path,
        "\ufeffpath,identity,camera,split\na.jpg,ann,1,train\nsub/b.jpg,7,1,query\n"
        f'{absolute},7,2,gallery\n"c.jpg","zoë, the 2nd",3,gallery\n',
    )
    dataset = data.load("csv", path)
    assert columns(dataset.train) == (["ann"], [1])
    assert columns(dataset.query) == (["7"], [1])
    assert columns(dataset.gallery) == (["7", "zoë, the 2nd"], [2, 3])
    assert dataset.gallery.path[0] == str(absolute)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_load_csv_separators_and_line_ends_are_detected(tmp_path, separator, end):
    lines = (("path", "identity", "camera"), ('"a.jpg"', "Zoë, 2", "1"), ("c.jpg", '"x;y"', "2"))
    quoted = [[f'"{v}"' if separator in v and v[0] != '"' else v for v in line] for line in lines]
    text = "\ufeff" + end.join(separator.join(line) for line in quoted)
    dataset = data.load("csv", table(tmp_path, text))
    assert dataset.train.identity.tolist() == ["Zoë, 2", "x;y"]
    assert dataset.train.camera.tolist() == [1, 2]


def test_load_csv_identities_are_kept_as_text(tmp_path):
    names = ["0001", "1", "18446744073709551614", "٣", "+1", "1e3"]
    rows = "".join(f"a.jpg,{name},1\n" for name in names)
    dataset = data.load("csv", table(tmp_path, f"path,identity,camera\n{rows}"))
    assert dataset.train.identity.tolist() == names


def test_load_csv_without_cameras_has_no_camera_column(tmp_path):
    for text in ("path,identity,camera\na.jpg,1,\nc.jpg,2,\n", "path,identity\na.jpg,1\nc.jpg,2\n"):
        dataset = data.load("csv", table(tmp_path, text))
        assert columns(dataset.train) == (["1", "2"], None)


def test_load_csv_cameras_are_names_or_numbers(tmp_path):
    rows = "path,identity,camera\na.jpg,1,{}\nc.jpg,2,{}\n"
    named = data.load("csv", table(tmp_path, rows.format("north", "02")))
    assert columns(named.train) == (["1", "2"], ["north", "02"])
    numbered = data.load("csv", table(tmp_path, rows.format("01", "2")))
    assert columns(numbered.train) == (["1", "2"], [1, 2])
    labels = [labels for _, labels in data.pk_batches(named.train, 2, 1, (8, 4)).take(1)]
    assert sorted(labels[0]["camera"].numpy().tolist()) == [0, 1]
    both = data.joined(named.train, numbered.train)
    assert both.camera.tolist() == ["north", "02", "1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,identity,camera,path\na.jpg,1,1,b\n", "'path' occurs twice"),
        ("path,camera\na.jpg,1\n", "got path, camera. 'identity' is missing"),
        ("", "got none. 'path' is missing"),
        ("path,identity,camera\n", r"people.csv` must contain images, got none"),
        ("path,identity,camera\na.jpg,1,1\nc.jpg,2\n", "must have 3 values, got 2 in line 3"),
        ("path,identity,camera\na.jpg,1,1,1\n", "must have 3 values, got 4 in line 2"),
        ("path,identity,camera\n,1,1\n", "line 2 has no path"),
        (
            "path,identity,split\na.jpg,1,gallery\na.jpg, ,query\n",
            "line 3 has no identity of a query image",
        ),
        (
            "path,identity,split\n,1,train\na.jpg,,query\nz.jpg,1,train\n",
            "invalid lines.*:\n  line 2 has no path\n  line 3 has no identity of a .*\n  line 4",
        ),
        (
            "path,identity,camera\na.jpg,1,1\nc.jpg,2,\n",
            "in all lines or in none, got no camera in line 3",
        ),
        ("path,identity,camera\nz.jpg,1,1\n", r"line 2 has path .*z.jpg, which does not exist"),
        (
            "path,identity,camera,split\na.jpg,1,1,test\n",
            "line 2 has split 'test', not one of train, q",
        ),
        (
            "path,identity,camera,split\na.jpg,1,1,query\n",
            "must have both query and gallery, got query",
        ),
        ('path,identity,camera\na.jpg,1,1\n"c.jpg,2,1\n', "unexpected end of data in line 3"),
    ],
)
def test_load_csv_invalid_table_raises(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        data.load("csv", table(tmp_path, text))


def test_load_csv_non_utf8_raises(tmp_path):
    path = table(tmp_path, "")
    path.write_bytes("path,identity,camera\na.jpg,Zoë,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"must be a table in UTF-8, got .* byte 0xeb"):
        data.load("csv", path)


def test_load_csv_folder_without_single_table_raises(tmp_path):
    with pytest.raises(InputError, match=r"must hold one .csv file, got 0"):
        data.load("csv", tmp_path)
    (table(tmp_path, "").parent / "more.csv").write_text("")
    with pytest.raises(InputError, match=r"must hold one .csv file, got 2"):
        data.load("csv", tmp_path)


def test_load_folder_of_identities_is_all_train(tmp_path):
    for name in ("bob/1.jpg", "bob/2.png", "007/x.bmp"):
        picture(tmp_path / name)
    dataset = data.load("folder", tmp_path)
    assert columns(dataset.train) == (["007", "bob", "bob"], None)
    assert dataset.query is None


def test_load_folder_with_parts_returns_all_parts(tmp_path):
    for name in ("train/bob/1.jpg", "query/zoe/1.jpg", "gallery/zoe/2.jpg", "gallery/kim/1.jpg"):
        picture(tmp_path / name)
    dataset = data.load("folder", tmp_path)
    assert columns(dataset.train) == (["bob"], None)
    assert columns(dataset.query) == (["zoe"], None)
    assert columns(dataset.gallery) == (["kim", "zoe"], None)


def test_load_folder_invalid_layout_raises(tmp_path):
    with pytest.raises(InputError, match=r"must contain images, got none"):
        data.load("folder", tmp_path)
    (tmp_path / "bob").mkdir()
    with pytest.raises(InputError, match=r"bob` must contain images, got none"):
        data.load("folder", tmp_path)
    picture(tmp_path / "stray.jpg")
    picture(tmp_path / "bob/1.jpg")
    with pytest.raises(InputError, match=r"must hold folders of images only, got .*stray.jpg"):
        data.load("folder", tmp_path)


def test_load_synthetic_second_call_reuses_images(tmp_path):
    sizes = {"train_identities": 2, "test_identities": 2, "cameras": 2, "distractors": 1}
    first = data.load("synthetic", tmp_path / "drawn", size=(32, 16), **sizes)
    assert first.name == "synthetic"
    assert sorted(set(first.train.identity.tolist())) == [1, 2]
    assert 0 in first.gallery.identity
    file = first.train.path[0]
    written = (tmp_path / "drawn").stat().st_mtime_ns, Path(file).read_bytes()
    again = data.load("synthetic", tmp_path / "drawn")
    assert again.train.path.tolist() == first.train.path.tolist()
    assert written == ((tmp_path / "drawn").stat().st_mtime_ns, Path(file).read_bytes())
    with pytest.raises(InputError, match=r"`train_identities` must be 2, .*got 3"):
        data.load("synthetic", tmp_path / "drawn", size=(32, 16), **sizes | {"train_identities": 3})


@pytest.mark.real
def test_load_market1501_mini_has_expected_counts(real_data):
    dataset = data.load("market1501", real_data / "data/market1501-mini")
    sizes = {
        part: (len(images), len(np.unique(images.identity)))
        for part, images in dataset.parts().items()
    }
    assert sizes["train"] == (9173, 500)
    assert sizes["query"][0] == 968
    assert sizes["gallery"] == (2795, 251)
    for images in dataset.parts().values():
        assert set(images.camera.tolist()) == {1, 2, 3, 4, 5, 6}
