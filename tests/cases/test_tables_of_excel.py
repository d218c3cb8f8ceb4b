"""Tables as Excel, Windows and other programs write them."""

import codecs

import numpy as np
import pytest
from PIL import Image

from keras_reid import data
from keras_reid.cli import enrol
from keras_reid.data.attribute_tables import read_attributes
from keras_reid.data.keypoints import read_keypoints
from keras_reid.errors import InputError
from keras_reid.io import read_table
from keras_reid.scale.listing import listed
from keras_reid.skeletons import COCO

ROWS = "path;identity;camera\r\ncrops/a.jpg;Müller;1\r\ncrops/b.jpg;Łukasz;2\r\n"


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table next to the images crops/a.jpg and crops/b.jpg."""
    (tmp_path / "crops").mkdir()
    for name in "ab":
        Image.new("RGB", (16, 32)).save(tmp_path / f"crops/{name}.jpg")

    def write(content):
        file = tmp_path / "t.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace(";", ","),
        ROWS.replace(";", "\t"),
        ROWS.replace("\r\n", "\r"),
        ROWS.replace("\r\n", "\r\n;;\r\n"),
        ROWS + ";;\r\n; ;\r\n\r\n;;;;\r\n",
        ";;\r\n\r\n" + ROWS,
        "sep=;\r\n" + ROWS,
        "SEP=;\n" + ROWS,
        '"sep=;"\r\n' + ROWS,
        "sep=,\r\n" + ROWS.replace(";", ","),
        "sep=\t\r\n" + ROWS.replace(";", "\t"),
        "sep=|\r\n" + ROWS.replace(";", "|"),
        "sep=;;;\r\n" + ROWS,
        ROWS.replace("path;identity;camera", "Path;Identity;CAMERA"),
        ROWS.replace("path;identity;camera", " PATH ;IDENTITY;Camera"),
        ROWS.replace("\r\n", ";;\r\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_load_csv_of_excel_returns_rows(text, encoding, table):
    bom = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    train = data.load("csv", table(bom + text.encode(encoding))).train
    assert train.identity.tolist() == ["Müller", "Łukasz"]
    assert train.camera.tolist() == [1, 2]


def test_load_csv_blank_value_is_named_with_its_line(table):
    text = "sep=;\r\n" + ROWS.replace("crops/b.jpg;Łukasz", ";;\r\n;Łukasz")
    with pytest.raises(InputError, match=r"t\.csv.*\n  line 5 has no path"):
        data.load("csv", table(text))


def test_load_csv_value_without_column_raises(table):
    with pytest.raises(InputError, match="must have 3 values, got 4 in line 2"):
        data.load("csv", table(ROWS.replace("Müller;1", "Müller;1;9")))


def test_load_csv_column_in_two_cases_raises(table):
    with pytest.raises(InputError, match="'path' occurs twice"):
        data.load("csv", table("path;Path;identity\ncrops/a.jpg;crops/a.jpg;a\n"))


@pytest.mark.parametrize("before", [0, 5000])
def test_read_table_wrong_encoding_raises(before, table):
    rows = "path;identity\n" + "a.jpg;anna\n" * before + "crops/u.jpg;Müller\n" + "a.jpg;b\n" * 3
    with pytest.raises(InputError, match=r"must be a table in UTF-8, got .*0xfc.*Excel"):
        list(read_table(table(rows.encode("cp1252")), ["path"])[1])


def test_read_table_cut_utf16_raises(table):
    with pytest.raises(InputError, match="truncated data"):
        list(read_table(table(ROWS.encode("utf-16")[:-1]), ["path"])[1])


@pytest.mark.parametrize("path", ["crops\\a.jpg", ".\\crops\\a.jpg", "crops\\..\\crops/a.jpg"])
def test_tables_windows_paths_open_file(path, table, tmp_path):
    file = table(f"path,identity,Time\n{path},anna,5\n")
    train = data.load("csv", file).train
    assert data.decodable(train.path).all()
    (image,) = listed(file)
    assert data.decodable(np.array([image.path])).all()
    images, times = enrol._people(file)
    assert [times[path] for path in images.path.tolist()] == [5.0]


def test_load_csv_existing_backslash_name_is_preferred(table, tmp_path):
    Image.new("RGB", (16, 32)).save(tmp_path / "crops\\a.jpg", format="JPEG")
    train = data.load("csv", table("path,identity\ncrops\\a.jpg,anna\n")).train
    assert train.path.tolist() == [str(tmp_path / "crops\\a.jpg")]


def test_load_csv_missing_file_of_windows_is_named_as_written(table):
    with pytest.raises(InputError, match=r"line 2 has path .*crops\\c\.jpg, which does not exist"):
        data.load("csv", table("path,identity\ncrops\\c.jpg,anna\n"))


def test_read_keypoints_table_of_excel_reads_points(table, tmp_path):
    header = "File;" + ";".join(f"{name.upper()}_X;{name}_Y" for name in COCO.names)
    file = table(f"sep=;\r\n{header}\r\ncrops\\a.jpg{';7' * 34}\r\n{';' * 34}\r\n")
    images = data.PersonImages([str(tmp_path / "crops/a.jpg")], ["anna"], None)
    points = read_keypoints(images, file).columns["keypoints"]
    assert np.allclose(points[0, :, 0], 7.5 / 16)


def test_read_attributes_table_of_excel_reads_values_and_keeps_names(table):
    found = read_attributes(table("Identity;Hat;AGE\r\nanna;1;3\r\n;;\r\nberta;0;1\r\n"))
    assert found.identity.tolist() == ["anna", "berta"]
    assert found.schema.names[:2] == ("Hat", "age_child")
    assert found.values[:, 0].tolist() == [1, 0]
