"""An image that is replaced or relabeled under the same name is noticed by `enrol` and `embed`."""

import csv
import os
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data, gallery, models, scale
from keras_reid.cli.enrol import _people
from keras_reid.data.keypoints import estimate_keypoints
from keras_reid.data.pipeline import image_batches
from keras_reid.errors import InputError
from keras_reid.io import content_digest
from keras_reid.scale import listing
from keras_reid.skeletons import COCO
from keras_reid.training.runs import Run

MODEL = "0123456789abcdef"
URIS = {
    "memory": {"uri": "memory:"},
    "faiss": {"uri": "faiss:{}/people"},
    "faiss, approximate": {"uri": "faiss:{}/people", "approximate_from": 10, "recall": 1.0},
    "milvus": {"uri": "{}/people.db"},
}


def opened(kind, folder):
    options = dict(URIS[kind])
    return gallery.open(options.pop("uri").format(folder), **options)


def bytes_in(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", URIS)
def test_gallery_changed_rows_are_replaced_or_moved(kind, tmp_path):
    x = np.random.default_rng(0).standard_normal((42, 8)).astype(np.float32)
    images = [f"{i}.png" for i in range(40)]
    names = [f"person-{i}" for i in range(40)]
    cameras, times = ["1"] * 40, [float(i) for i in range(40)]
    digests = [f"digest-{i}" for i in range(39)] + [""]
    with opened(kind, tmp_path) as people:
        people.enrol(
            x[:40], names, cameras, times, images, model_fingerprint=MODEL, digests=digests
        )
        people.search(x[:1], 1)  # which makes an approximate index
        now = [*images, "40.png"], ["someone else", *names[1:], "new"]
        later = ["", "", "2", *[""] * 38], [None, None, None, 33.5, *[None] * 37]
        contents = ["digest-0", "another", *digests[2:39], "first", "digest-40"]
        changes = people.changes(*now, *later, contents)
        masks = [np.flatnonzero(mask).tolist() for mask in changes]
        assert masks == [[40], [1, 39], [0, 2, 3]]
        assert people.relabel(*(column[:4] for column in (*now, *later))) == 4
        some = [1, 39, 40]
        columns = [[column[i] for i in some] for column in (now[1], later[0], later[1], now[0])]
        written = people.enrol(
            x[[41, 39, 40]],
            *columns,
            model_fingerprint=MODEL,
            existing="replace",
            digests=[contents[i] for i in some],
        )
        assert written == 3
        changes = people.changes(*now, *later, contents)
        assert [int(mask.sum()) for mask in changes] == [0, 0, 0]

        def check(people):
            assert people.count() == 41
            hits = [hits[0] for hits in people.search(x[[41, 0, 2, 3, 40]], 1)]
            assert [hit[:4] for hit in hits] == [
                ("1.png", "person-1", "", None),
                ("0.png", "someone else", "1", 0.0),
                ("2.png", "person-2", "2", 2.0),
                ("3.png", "person-3", "1", 33.5),
                ("40.png", "new", "", None),
            ]
            assert all(hit.distance < 1e-3 for hit in hits)
            assert people.search(x[1:2], 1)[0][0].distance > 0.1  # of the content before

        check(people)
    if kind != "memory":
        held = bytes_in(tmp_path)
        assert x[1].tobytes() not in held
        assert b"person-0" not in held
        assert x[41].tobytes() in held
        with opened(kind, tmp_path) as people:
            check(people)
            assert people.remove("person-0") == 0
            assert people.remove("someone else") == 1


def test_milvus_interrupted_replacement_erases_row(tmp_path, monkeypatch):
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    with monkeypatch.context() as patch, opened("milvus", tmp_path) as people:
        patch.setattr(people.store, "purge", lambda: None)  # as if killed before it closes
        people.enrol(x[:1], ["anna"], images=["1"], model_fingerprint=MODEL)
        people.enrol(x[1:], ["b"], images=["1"], model_fingerprint=MODEL, existing="replace")
        patch.setattr(people.store, "_mark", lambda unclean: None)
        people.close()
    assert b"anna" in bytes_in(tmp_path)
    with opened("milvus", tmp_path) as people:
        assert people.identities() == {"b": 1}
    held = bytes_in(tmp_path)
    assert (b"anna" in held, x[0].tobytes() in held, x[1].tobytes() in held) == (False, False, True)


def picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_table(file, rows):
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", "identity", "camera"), *rows])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return models.build("tiny", 3, (32, 16), weights="none")


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run of an untrained model, which tells random images apart."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = Run(folder)
    run.start({"flip": False, "dataset": "folder", "data_dir": "people"})
    run.save_models([model])
    run.finish({})
    return f"--run={folder}"


def test_enrol_replaced_photo_and_corrected_identity_updates_the_gallery(run, tmp_path):
    for i, name in enumerate(("anna/1", "anna/2", "bob/1", "carl/1")):
        picture(tmp_path / f"people/{name}.png", i)
    paths = ["people/anna/1.png", "people/anna/2.png", "people/bob/1.png"]
    table = tmp_path / "list.csv"

    def search(*words, expected=0):
        code, out, err = within("search.py", run, "--gallery=faiss:g", *words, cwd=tmp_path)
        assert code == expected, err
        return out

    write_table(table, zip(paths, ("anna", "anna", "bob"), "111", strict=True))
    assert "enrolled 3 images, 0 embedded again" in search("enrol", "list.csv")
    digest = content_digest(tmp_path / paths[0])
    picture(tmp_path / paths[0], 77)  # the photo is replaced
    (tmp_path / paths[2]).write_bytes(b"no image")  # as is this one, by garbage
    rows = [
        *zip(paths, ("anna", "berta", "bob"), "112", strict=True),
        ("people/carl/1.png", "c", "1"),
    ]
    write_table(table, rows)
    out = search("enrol", "list.csv", expected=1)  # with an unreadable file
    assert "enrolled 1 image, 1 embedded again (changed), 2 moved" in out
    assert "0 already enrolled, 1 skipped" in out
    assert "4 images of 4 identities" in out
    with gallery.open(f"faiss:{tmp_path}/g") as people:
        assert people.identities() == {"anna": 1, "berta": 1, "bob": 1, "c": 1}
        held = people.held([str(tmp_path / paths[0]), str(tmp_path / paths[2])])
        assert [row.camera for row in held.values()] == ["1", "2"]
        assert digest not in [row.digest for row in held.values()]
    assert "   1  0.0000  anna " in search("--top_k=1", "query", paths[0])
    with closing(sqlite3.connect(tmp_path / "g.rows")) as database, database:
        database.execute("update rows set digest = ''")  # of an earlier version
    picture(tmp_path / paths[2], 2)
    assert "enrolled 0 images, 4 embedded again" in search("enrol", "list.csv")
    assert "0 embedded again (changed), 0 moved" in search("enrol", "list.csv")


def test_enrol_same_file_name_in_folders_of_two_spellings_adds_both(run, tmp_path):
    names = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    for i, name in enumerate(names):
        picture(tmp_path / "people" / name / "1.png", i)
    for text in ("enrolled 2 images", "2 already enrolled"):
        code, out, err = within(
            "search.py", run, "--gallery=faiss:g", "enrol", "people", cwd=tmp_path
        )
        assert code == 0, err
        assert text in out
        assert "2 images of 1 identity" in out


def test_decoded_cache_of_replaced_photo_with_equal_size_and_time_is_written_again(tmp_path):
    path = tmp_path / "a.bmp"
    images = data.PersonImages([str(path)], [0], None)
    seen = []
    for shade in (10, 200):
        Image.new("RGB", (16, 32), (shade,) * 3).save(path)
        os.utime(path, ns=(1, 1))
        (batch,) = image_batches(images, 1, (32, 16), tmp_path / "cache")
        seen.append(int(batch.numpy().mean()))
    assert seen == [10, 200]
    assert len(list((tmp_path / "cache").glob("*.uint8"))) == 2


def enrolled(run, folder, *sources):
    """Enroll each source, and return the output or error of each."""
    done = []
    for source in sources:
        code, out, err = within(
            "search.py", run, "--gallery=faiss:g", "enrol", str(source), cwd=folder
        )
        done.append(err if code else out)
    return done


def test_enrol_other_path_to_folder_keeps_one_row_per_image(run, tmp_path):
    for i, name in enumerate(("anna/1", "bob/1")):
        picture(tmp_path / f"people/{name}.png", i)
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("people")
    (tmp_path / "sub/away").symlink_to(tmp_path / "people/anna")
    tables = {
        "a.csv": "sub/../people/bob/1.png",
        "b.csv": "link/bob/1.png",
        "sub/deep/c.csv": "../away/../bob/1.png",  # `..` of the folder that the link names
    }
    for name, path in tables.items():
        write_table(tmp_path / name, [(path, f"carl {name[-5]}", "")])
    first, *others, last = enrolled(
        run, tmp_path, "people", "sub/../people", "link", tmp_path / "link", *tables
    )
    assert "enrolled 2 images" in first
    assert [" 0 moved" in text and "2 already" in text for text in others[:3]] == [True] * 3
    for text in (*others[3:], last):
        assert "enrolled 0 images, 0 embedded again (changed), 1 moved" in text
        assert "2 images of 2 identities" in text
    with gallery.open(f"faiss:{tmp_path}/g") as people:
        assert people.identities() == {"anna": 1, "carl c": 1}


def test_embed_and_enrol_linked_folder_have_equal_references(model, tmp_path):
    picture(tmp_path / "people/anna/1.png", 0)
    (tmp_path / "link").symlink_to("people")
    write_table(tmp_path / "list.csv", [("link/anna/1.png", "anna", "")])
    image = str(tmp_path / "people/anna/1.png")
    assert [listed.path for listed in listing.listed(tmp_path / "link")] == [image]
    with gallery.open("memory:") as people:
        x = np.ones((1, 8))
        for folder in ("people", "link"):
            (shard,) = scale.embed(tmp_path / "list.csv", model, tmp_path / f"of {folder}")
            images, _ = _people(tmp_path / folder)
            assert shard.path.tolist() == images.path.tolist() == [image]
            people.enrol(x, ["anna"], images=shard.path, model_fingerprint=MODEL, existing="skip")
            assert people.contains(images.path) == {image}
        assert people.count() == 1


@pytest.mark.parametrize("source", ["people", "list.csv"])
def test_embed_after_last_image_deleted_keeps_no_embedding(source, model, tmp_path):
    out, images = tmp_path / "out", [f"people/{i}.png" for i in range(3)]
    for i, image in enumerate(images):
        picture(tmp_path / image, i)
    write_table(tmp_path / "list.csv", [(image, "anna", "") for image in images])
    before = scale.embed(tmp_path / source, model, out, shard_size=2)
    x = before.mapped().features["embedding"][0].tobytes()
    assert x in bytes_in(out)
    (tmp_path / source).rename(tmp_path / "away")
    with pytest.raises(
        InputError, match=r"at least one image|No such file"
    ):  # a disk that is not mounted
        scale.embed(tmp_path / source, model, out, shard_size=2)
    assert x in bytes_in(out)
    if source == "people":
        (tmp_path / source).mkdir()
    else:
        write_table(tmp_path / source, [])
    shards = scale.embed(tmp_path / source, model, out, shard_size=2)
    assert (len(shards), list(shards), shards.failed) == (0, [], 0)
    with pytest.raises(InputError, match="`images` must be at least 1, got 0"):
        shards.mapped()
    held = bytes_in(out)
    assert x not in held
    assert b"anna" not in held
    assert b"0.png" not in held
    if source == "people":
        picture(tmp_path / images[0], 0)
        assert len(scale.embed(tmp_path / source, model, out, shard_size=2)) == 1


def test_enrol_image_in_two_chunks_raises_before_first_chunk(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_reid.cli.enrol.CHUNK", 2)
    for i in range(4):
        picture(tmp_path / f"{i}.png", i)
    rows = [(f"{i}.png", f"p{i}", "") for i in range(4)]
    write_table(tmp_path / "list.csv", [*rows, ("./0.png", "another", "")])
    (text,) = enrolled(run, tmp_path, "list.csv")
    assert f"list.csv` must list each image once, got {tmp_path}/0.png twice" in text
    assert not (tmp_path / "g.rows").exists()
    with pytest.raises(InputError, match=r"once, got .*/0\.png twice"):
        scale.embed(tmp_path / "list.csv", model, tmp_path / "out", shard_size=2)
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:  # as earlier versions listed
        patch.setattr("keras_reid.scale.listing.repeated", lambda paths: None)
        scale.embed(tmp_path / "list.csv", model, tmp_path / "out", shard_size=2)
    (text,) = enrolled(run, tmp_path, "out")
    assert "out` must list each image once" in text
    assert not (tmp_path / "g.rows").exists()


class Corner:
    """An estimator that sees each point at the brightness of the first pixel."""

    skeleton = COCO

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += len(images)
        return np.stack([np.full((17, 3), image[0, 0, 0] / 255) for image in images])


def test_keypoints_of_replaced_photo_are_estimated_again(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        picture(Path(path), i)
    images, table = data.PersonImages(paths, [0, 1, 2], None), tmp_path / "points.csv"
    estimator = Corner()
    before = estimate_keypoints(images, estimator, table).columns["keypoints"]
    picture(Path(paths[1]), 77)
    # Of the others nothing is lost.
    after = estimate_keypoints(images[1:2], estimator, table).columns["keypoints"]
    assert np.abs(after[0] - before[1]).max() > 0.01
    again = estimate_keypoints(images, estimator, table).columns["keypoints"]
    np.testing.assert_allclose(again, [before[0], after[0], before[2]], atol=1e-3)
    assert estimator.calls == 4


def contents(shards):
    """Identity, camera and embedding of each image by the end of its path."""
    return {
        path[-5:]: (identity, camera, embedding)
        for shard in shards
        for path, identity, camera, embedding in zip(
            shard.path.tolist(), shard.identity, shard.camera, shard.embedding, strict=True
        )
    }


def test_embed_again_embeds_new_and_replaced_images(model, tmp_path):
    table = tmp_path / "list.csv"
    for i in range(5):
        picture(tmp_path / f"{i}.png", i)
    write_table(table, [(f"{i}.png", f"p{i}", "1") for i in range(5)])
    embedded = scale.embed(table, model, tmp_path / "out", shard_size=2)
    before = contents(embedded)
    assert len(embedded.mapped().path) == 5
    written = embedded.file(0).stat().st_mtime_ns

    picture(tmp_path / "2.png", 77)
    picture(tmp_path / "5.png", 5)
    rows = [(f"{i}.png", f"p{i}", "1") for i in (5, 0, 1, 2, 3)]  # without the last
    rows[4] = ("3.png", "corrected", "2")
    write_table(table, rows)
    again = scale.embed(table, model, tmp_path / "out", shard_size=2)
    after = contents(again)
    assert sorted(after) == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert after["3.png"][:2] == ("corrected", "2")
    for name in ("0.png", "1.png", "3.png"):
        np.testing.assert_array_equal(after[name][2], before[name][2])
    fresh = contents(scale.embed(table, model, tmp_path / "fresh"))
    for name, (_, _, embedding) in fresh.items():
        np.testing.assert_allclose(after[name][2], embedding, atol=1e-5)
    assert np.abs(after["2.png"][2] - before["2.png"][2]).max() > 1e-3
    assert again.file(0).stat().st_mtime_ns == written  # nothing of it changed
    mapped = again.mapped()
    assert sorted(path[-5:] for path in mapped.path) == sorted(after)
    for path, embedding in zip(mapped.path, mapped.features["embedding"], strict=True):
        np.testing.assert_array_equal(embedding, after[path[-5:]][2])


@pytest.mark.parametrize(("broken", "code"), [(1, 0), (2, 1)])
def test_embed_failed_images_are_counted_and_end_with_1_above_one_percent(
    run, tmp_path, broken, code
):
    for i in range(100):
        picture(tmp_path / f"images/{i:02}.png", i)
    for i in range(broken):
        (tmp_path / f"images/{i:02}.png").write_bytes(b"no image")
    got, out, err = within("embed.py", run, "--images=images", "--out=out", cwd=tmp_path)
    assert got == code
    assert f"100 images in 1 file of {tmp_path}/out, {broken} failed" in out
    assert (f"got {broken} of 100" in err) == (code == 1)
    (shard,) = scale.Shards(tmp_path / "out")
    assert int(shard.decodes.sum()) == 100 - broken
    picture(tmp_path / "images/00.png", 0)
    picture(tmp_path / "images/01.png", 1)
    got, out, err = within("embed.py", run, "--images=images", "--out=out", cwd=tmp_path)
    assert got == 0, err
    assert ", 0 failed" in out
