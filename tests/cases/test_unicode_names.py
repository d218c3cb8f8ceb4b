"""Names in two Unicode spellings, composed (NFC) and decomposed (NFD), are one name everywhere."""

import csv
import sqlite3
import unicodedata
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from keras_reid import data, evaluation, gallery
from keras_reid.data.attribute_tables import read_attributes
from keras_reid.data.keypoints import read_keypoints
from keras_reid.errors import InputError
from keras_reid.scale.listing import listed
from keras_reid.skeletons import COCO
from keras_reid.tracking.cameras import reference

MODEL = "0123456789abcdef"
NAMES = ("José", "한국", "Việt")
NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))
URIS = {"memory": "memory:", "faiss": "faiss:{}/people", "milvus": "{}/people.db"}
LASTING = [kind for kind in URIS if kind != "memory"]


def opened(kind, folder):
    return gallery.open(URIS[kind].format(folder))


def bytes_in(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def vectors(count):
    return np.random.default_rng(count).standard_normal((count, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", URIS)
def test_gallery_two_spellings_of_person_are_both_erased(kind, tmp_path):
    x = vectors(2 * len(NAMES))
    spelled = [[unicodedata.normalize(form, name) for name in NAMES] for form in ("NFD", "NFC")]
    with opened(kind, tmp_path) as people:
        for part, names in enumerate(spelled):
            people.enrol(
                x[part::2],
                names,
                cameras=[f"{name} 1" for name in names],
                images=[f"{part}/{name}/1.png" for name in names],
                model_fingerprint=MODEL,
            )
        assert people.identities() == dict.fromkeys(sorted(spelled[1]), 2)
        # A camera is the same in both spellings.
        for camera in (f"{NFC} 1", f"{NFD} 1"):
            hits = people.search(x[:1], 6, gallery.Filter(cameras=[camera]))[0]
            assert [hit.camera for hit in hits] == [f"{NFC} 1"] * 2
            assert people.search(x[:1], 6, gallery.Filter(not_cameras=[camera]))[0]
            others = people.search(x[:1], 6, query_cameras=[camera])[0]
            assert len(others) == 2 * len(NAMES) - 2
        # Paths are kept as they are, and compared in NFC.
        assert {hit.image for hit in people.search(x[:1], 6)[0]} == {
            f"{part}/{name}/1.png" for part, names in enumerate(spelled) for name in names
        }
        assert people.contains([f"0/{NFC}/1.png", f"0/{NFD}/1.png"]) == {
            f"0/{NFC}/1.png",
            f"0/{NFD}/1.png",
        }
        with pytest.raises(InputError, match="1 of 1 in the gallery"):
            people.enrol(x[:1], ["x"], images=[f"0/{NFC}/1.png"], model_fingerprint=MODEL)
        with pytest.raises(InputError, match="not empty and distinct"):
            people.enrol(x[:2], ["x", "x"], images=[NFC, NFD], model_fingerprint=MODEL)
        removed = [people.remove(name) for name in spelled[0]]
        assert removed == [2] * len(NAMES)
        assert people.count() == 0
    if kind in LASTING:
        held = bytes_in(tmp_path)
        assert not any(name.encode() in held for names in spelled for name in names)
        assert not any(row.tobytes() in held for row in x)


def old_faiss(folder, rows, x):
    """A gallery as version 0.2.0 wrote it."""
    with closing(sqlite3.connect(folder / "people.rows")) as database, database:
        database.executescript("""
            create table rows (id integer primary key, image text not null unique,
                identity text not null, camera text not null, time real,
                attributes text not null, embedding blob not null);
            create index by_identity on rows (identity);
            create table settings (name text primary key, value text not null);
        """)
        database.executemany(
            "insert into rows values (?, ?, ?, ?, null, '', ?)",
            [(i, *row, x[i].tobytes()) for i, row in enumerate(rows)],
        )
        settings = f'{{"width": 8, "fingerprint": "{MODEL}"}}'
        database.execute("insert into settings values ('settings', ?)", [settings])


def old_milvus(folder, rows, x):
    """A gallery as version 0.2.0 wrote it."""
    from pymilvus import DataType, MilvusClient

    with opened("milvus", folder) as people:  # for the settings
        people.enrol(x[:1], ["x"], model_fingerprint=MODEL)
        people.remove("x")
        client: MilvusClient = people.store.client
        client.drop_collection("people")
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name in ("image", "identity", "camera"):
            schema.add_field(name, DataType.VARCHAR, max_length=4096)
        schema.add_field("time", DataType.DOUBLE)
        schema.add_field("attributes", DataType.VARCHAR, max_length=4096)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="FLAT", metric_type="L2")
        client.create_collection(
            "people", schema=schema, index_params=index, consistency_level="Strong"
        )
        names = ("image", "identity", "camera")
        records = [
            {"id": i, **dict(zip(names, row, strict=True)), "time": -1e300, "attributes": ""}
            for i, row in enumerate(rows)
        ]
        client.insert("people", [r | {"embedding": x[r["id"]].tolist()} for r in records])
        client.flush("people")


@pytest.mark.parametrize("kind", LASTING)
def test_gallery_of_0_2_0_is_converted_and_erasure_is_complete(kind, tmp_path):
    x = vectors(3)
    rows = [("a/1.png", NFD, f"{NFD} 1"), ("b/1.png", NFC, f"{NFC} 1"), ("c/1.png", "anna", "")]
    {"faiss": old_faiss, "milvus": old_milvus}[kind](tmp_path, rows, x)
    assert NFD.encode() in bytes_in(tmp_path)
    for _ in range(2):  # converted, and opened again
        with opened(kind, tmp_path) as people:
            assert people.identities() == {NFC: 2, "anna": 1}
            hits = people.search(x[:1], 3, gallery.Filter(cameras=[f"{NFD} 1"]))[0]
            assert [hit.image for hit in hits] == ["a/1.png", "b/1.png"]
            assert hits[0].distance < 1e-3
            assert {row.digest for row in people.held(["a/1.png"]).values()} == {""}
        assert NFD.encode() not in bytes_in(tmp_path)
    with opened(kind, tmp_path) as people:
        assert people.remove(NFD) == 2
    held = bytes_in(tmp_path)
    assert NFC.encode() not in held
    assert [row.tobytes() in held for row in x] == [False, False, True]


def test_gallery_attribute_names_in_two_spellings_are_one():
    with gallery.open("memory:") as people:
        for i, name in enumerate((NFD, NFC)):
            people.enrol(
                vectors(1),
                [f"p{i}"],
                attributes=[[0.1 + 0.8 * i]],
                attribute_names=[name],
                model_fingerprint=MODEL,
            )
        for name in (NFD, NFC):
            assert [hit.identity for hit in people.describe({name: True})] == ["p1", "p0"]


def pictures(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 8, 3), len(name), np.uint8)).save(root / name)


def test_folder_reader_two_spellings_are_one_identity(tmp_path):
    pictures(tmp_path, f"{NFC}/1.png", f"{NFD}/2.png", "anna/1.png")
    train = data.load("folder", tmp_path).train
    assert sorted(train.identity.tolist()) == [NFC, NFC, "anna"]
    assert sorted(train.path.tolist()) == sorted(map(str, tmp_path.glob("*/*.png")))


def test_csv_reader_two_spellings_are_one_identity_camera_and_tracklet(tmp_path):
    pictures(tmp_path, f"{NFD}.png", "2.png", "3.png")
    rows = [(f"{NFD}.png", NFD, NFD, NFD), ("2.png", NFC, NFC, NFC), ("3.png", "b", "c", "d")]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "identity", "camera", "tracklet"), *rows])
    train = data.load("csv", tmp_path / "list.csv").train
    assert train.identity.tolist() == [NFC, NFC, "b"]
    assert train.camera.tolist() == [NFC, NFC, "c"]
    assert [rows.tolist() for rows in train.tracklet_rows] in ([[0, 1], [2]], [[2], [0, 1]])
    found = [(one.identity, one.camera) for one in listed(tmp_path / "list.csv")]
    assert found == [(NFC, NFC), (NFC, NFC), ("b", "c")]


def test_attribute_table_labels_identity_in_other_spelling(tmp_path):
    table = tmp_path / "attributes.csv"
    table.write_text(f"identity,{NFD}\n{NFD},1\nanna,0\n", encoding="utf-8")
    attributes = read_attributes(table)
    images = data.PersonImages(["a", "b"], [NFC, "anna"], None)
    assert attributes.label(images).columns["attributes"].tolist() == [[1.0], [0.0]]
    assert attributes.schema.column(NFC) == attributes.schema.column(NFD) == 0


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"{NFC},{NFD}", f"'{NFC}' occurs twice"),
        (f"hat,{NFD},bag,{NFC}", f"'{NFC}' occurs twice"),
        ("age,age_child", "'age_child' twice"),
    ],
)
def test_attribute_table_column_in_two_spellings_raises(tmp_path, header, message):
    table = tmp_path / "attributes.csv"
    values = ",1" * (header.count(",") + 1)
    table.write_text(f"identity,{header}\nanna{values}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_attributes(table)
    with pytest.raises(InputError, match="`names` must be different attributes"):
        data.AttributeSchema((NFC, "hat", NFD))


@pytest.mark.parametrize("other", [NFC, NFD])
@pytest.mark.parametrize("values", ["0,1", "1,0", "1,-1"])
def test_attribute_table_identity_with_two_values_raises(tmp_path, other, values):
    table = tmp_path / "attributes.csv"
    lines = f"identity,hat,bag\n{NFC},1,1\nanna,0,1\n{other},"
    table.write_text(lines + "1,1\n", encoding="utf-8")
    images = data.PersonImages(["a", "b"], [NFC, "anna"], None)
    labeled = read_attributes(table).label(images).columns["attributes"]
    assert labeled.tolist() == [[1, 1], [0, 1]]
    table.write_text(lines + values + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"got '{NFC}' with different values in rows 1 and 3"):
        read_attributes(table)


def test_attribute_table_padded_identity_with_integer_labels_raises(tmp_path):
    (tmp_path / "attributes.csv").write_text("identity,hat\n2,1\n0002,0\n")
    table = read_attributes(tmp_path / "attributes.csv")
    names = data.PersonImages(["a", "b"], ["2", "0002"], None)
    assert table.label(names).columns["attributes"].tolist() == [[1], [0]]
    with pytest.raises(InputError, match="got '2' with different values in rows 1 and 2"):
        table.label(data.PersonImages(["a"], [2], None))


def test_keypoints_of_path_in_other_spelling_are_read(tmp_path):
    pictures(tmp_path, f"{NFD}/1.png", "anna/1.png")
    header = ["file", *(f"{name}_{axis}" for name in COCO.names for axis in "xy")]
    with (tmp_path / "points.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        for name, x in ((f"{NFC}/1.png", 2), ("anna/1.png", 3)):
            table.writerow([name, *[x] * (len(header) - 1)])
    paths = [str(tmp_path / NFD / "1.png"), str(tmp_path / "anna/1.png")]
    images = read_keypoints(data.PersonImages(paths, [1, 2], None), tmp_path / "points.csv")
    assert images.columns["keypoints"][:, 0, 0].tolist() == [2.5 / 8, 3.5 / 8]


def test_evaluation_labels_in_two_spellings_match(tmp_path):
    distances = np.array([[0.1, 0.2, 0.3]])
    query = evaluation.Labels([NFD], [f"{NFD} 1"])
    others = evaluation.Labels([NFC, "anna", NFC], [f"{NFC} 1", "2", "3"])
    result = evaluation.rank(distances, query, others)  # the first image is of the query's camera
    assert result.cmc[0] == 0.0
    assert result.mAP == 0.5
    np.savez(tmp_path / "query.npz", embedding=vectors(2), identity=[NFD, NFC], camera=[NFD, NFC])
    stored = evaluation.load_features(tmp_path / "query.npz")
    assert stored.identity.tolist() == stored.camera.tolist() == [NFC, NFC]


def test_tracks_camera_in_other_spelling_has_equal_reference():
    assert reference(NFD, 0, "video.mp4", 3) == reference(NFC, 0, "video.mp4", 3)
