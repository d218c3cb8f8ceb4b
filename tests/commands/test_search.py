"""Search command: enrollment, queries, unreadable images and error messages."""

import csv
import json
import struct
import zlib
from functools import partial

import keras
import numpy as np
import pytest
from PIL import Image
from processes import TINY, said

from keras_reid import data, models, serving, visualize
from keras_reid.cli.enrol import _people
from keras_reid.training.runs import Run

pytestmark = pytest.mark.slow  # processes that train and embed

SIZE = (32, 16)


search = partial(said, "search.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, an export of it, drawn images, and the gallery's as folders and as a table."""
    root = tmp_path_factory.mktemp("search")
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 5, SIZE, weights="none")
    data.synthetic.generate(root / "drawn", train_identities=4, test_identities=12, size=(64, 32))
    dataset = data.load("synthetic", str(root / "drawn"))
    (batch,) = data.image_batches(dataset.train, 100, SIZE)
    for _ in range(10):
        model(batch, training=True)
    run = Run(root / "run")
    run.start({"flip": True, "dataset": "synthetic", "data_dir": "drawn"})
    run.save_models([model])
    run.finish({})
    assert serving.export(model, root / "export", flip=True).name == "1"
    rows = []
    for i, path in enumerate(dataset.gallery.path.tolist()):
        name = str(dataset.gallery.identity[i])
        if name in ("0", "-1"):
            continue
        image = root / "people" / f"person {name}" / f"{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(image)
        rows.append((image.relative_to(root), f"person {name}", dataset.gallery.camera[i], i))
    with open(root / "people.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("path", "identity", "camera", "time"), *rows])
    return root, rows


RUN = ("--run=run", "--gallery=people.db")


def test_search_enrol_embed_shards_then_query_finds_image(folder):
    pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
    root, rows = folder
    said("embed.py", "--run=run", "--images=people.csv", "--out=shards", "--shard_size=7", cwd=root)
    other = "--gallery=faiss:shards.db"
    out = search(other, "enroll", "shards", cwd=root)  # an alias
    assert f"enrolled {len(rows)} images, 0 embedded again" in out
    assert f" 0 moved (another identity, camera or time), {len(rows)} already enrolled" in search(
        other, "enrol", "shards", cwd=root
    )
    image, identity, _, _ = rows[0]
    answers = json.loads(search("--run=run", other, "--format=json", "query", image, cwd=root))
    best = answers["queries"][0]["hits"][0]
    assert best["identity"] == identity
    assert best["distance"] == pytest.approx(0, abs=1e-3)
    err = search("--run=run", other, "enrol", "shards", cwd=root, code=1)
    assert "Omit --model" in err
    said("embed.py", "--run=run", "--images=people", "--out=nameless", cwd=root)
    assert "Embed a table with a column identity" in search(
        "--gallery=faiss:x.db", "enrol", "nameless", cwd=root, code=1
    )


def test_search_enrol_calibrate_query_remove_workflow_succeeds(folder):
    root, rows = folder
    assert "Gallery people.db not found" in search(*RUN, "stats", cwd=root, code=1)
    out = search(*RUN, "enrol", "people", cwd=root)
    assert f"enrolled {len(rows)} images, 0 embedded again" in out
    out = search(*RUN, "enrol", "people", cwd=root)
    assert f" 0 moved (another identity, camera or time), {len(rows)} already enrolled" in out
    image, identity, _, _ = rows[0]
    out = search(*RUN, "--top_k=3", "query", image, cwd=root)
    assert f"{image}: nearest: {identity} (not calibrated)" in out
    assert "   1  0.0000  " in out

    pairs = ["--dataset=synthetic", "--data_dir=drawn"]
    out = search(*RUN, *pairs, "calibrate", cwd=root)
    assert "match probabilities: drawn" in out
    assert "person not enrolled: match" in out
    stats = json.loads(search(*RUN, "--format=json", "stats", cwd=root))
    assert (stats["rows"], stats["identities"]) == (len(rows), 12)
    assert stats["calibration"]["source"] == "drawn"
    assert stats["calibration"]["persons"] == 12

    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    options = ["--top_k=2", "--format=json", "--rerank=k_reciprocal"]
    out = search(
        *["--saved_model=export/1", RUN[1]], *options, "query", image, "noise.png", cwd=root
    )
    answer = json.loads(out)
    known, non_mated = answer["queries"]
    assert known["identity"] == known["hits"][0]["identity"] == identity
    assert [len(q["hits"]) for q in answer["queries"]] == [2, 2]
    assert known["hits"][0]["reranked"] is not None
    assert known["probability"] > non_mated["probability"]
    assert (non_mated["identity"] is None) == (non_mated["verdict"] == "no match")
    search(*RUN, "--top_k=2", "--out=out/page.html", "query", image, "noise.png", cwd=root)
    page = (root / "out/page.html").read_text()
    assert page.count("<img ") == page.count("data:image/jpeg;base64,") == 6
    assert identity in page
    err = search(*RUN, "--out=out/page.html", "query", image, cwd=root, code=1)
    assert "--out must be a new path" in err
    strict = ("--match_probability=1", "--possible_probability=1")
    out = search(*RUN, *strict, "query", image, cwd=root)
    assert f"{image}: no match (nearest: {identity}, " in out
    err = search(*RUN, "--match_probability=0.01", "query", image, cwd=root, code=1)
    assert "`match_probability` must be at least `possible_probability`" in err

    gone = sum(row[1] == identity for row in rows)
    assert f"erased {gone} images of {identity}" in search(*RUN, "remove", identity, cwd=root)
    assert f"Identity '{identity}' not found in people.db" in search(
        *RUN, "remove", identity, cwd=root, code=1
    )
    assert f"rows         {len(rows) - gone}" in search(*RUN, "stats", cwd=root)


def test_search_csv_with_cameras_and_times_filters_hits(folder):
    root, rows = folder
    where = ("--run=run", "--gallery=faiss:index.faiss")
    search(*where, "enrol", "people.csv", cwd=root)
    image, identity, camera, time = rows[5]
    options = ("--format=json", "--top_k=5")

    def hits(*more):
        out = search(*where, *options, *more, "query", image, cwd=root)
        return json.loads(out)["queries"][0]["hits"]

    (first, *_) = hits()
    assert (first["identity"], first["camera"], first["time"]) == (identity, str(camera), time)
    assert all(hit["camera"] != str(camera) for hit in hits(f"--query_camera={camera}"))
    window = hits(f"--after={time}", f"--before={time + 3}", "--cameras=1,2,3,4")
    assert {hit["time"] for hit in window} == {float(time), time + 1.0, time + 2.0}


def png_header(width, height):
    """PNG with a header of that size and little data."""
    content = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", content), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c))
        for kind, c in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp_header(width, height):
    """The same as a BMP."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


@pytest.fixture(scope="module")
def unfit(tmp_path_factory):
    """Files that show no person, and the reason of each."""
    root = tmp_path_factory.mktemp("unfit")
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    Image.new("RGB", (200, 3)).save(root / "line.jpg")
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("this is text")
    (root / "huge.png").write_bytes(png_header(60_000, 60_000))
    (root / "large.png").write_bytes(png_header(11_000, 11_000))
    (root / "huge.bmp").write_bytes(bmp_header(60_000, 60_000))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(
        root / "half.jpg"
    )
    whole = (root / "half.jpg").read_bytes()
    (root / "half.jpg").write_bytes(whole[: len(whole) // 3])
    (root / "folder.jpg").mkdir()
    return root, {
        "dot.png": "1×1 pixels",
        "line.jpg": "3×200 pixels",
        "empty.jpg": "another type of file",
        "text.jpg": "another type of file",
        "huge.png": "pixels",
        "large.png": "11,000×11,000 pixels, more than 100,000,000",
        "huge.bmp": "pixels",
        "half.jpg": None,
        "folder.jpg": "a missing file",
        "nowhere.jpg": "a missing file",
    }


def test_unfit_returns_reason_per_bad_file(unfit, tmp_path):
    root, reasons = unfit
    for name, reason in reasons.items():
        shown = data.unfit(root / name)
        assert shown is None if reason is None else reason in shown, (name, shown)
    assert not data.decodable(np.array([str(root / "half.jpg")]))[0]
    Image.new("RGB", (8, 8)).save(tmp_path / "least.png")
    assert data.unfit(tmp_path / "least.png") is None


def test_search_unfit_files_are_skipped_by_enrol_and_fail_query(folder, unfit):
    root, rows = folder
    broken, reasons = unfit
    strange = root / "strange" / "somebody"
    strange.mkdir(parents=True)
    files = [name for name in reasons if (broken / name).is_file()]
    for name in files:
        (strange / name).write_bytes((broken / name).read_bytes())
    (strange / "good.png").write_bytes((root / rows[3][0]).read_bytes())
    where = ("--run=run", "--gallery=faiss:strange.faiss")
    err = search(*where, "enrol", "strange", cwd=root, code=1)
    assert f"got {len(files)} of {1 + len(files)}: " in err
    assert "dot.png (1×1 pixels" in err
    assert "half.jpg (a damaged image)" in err
    assert search(*where, "list", cwd=root) == "1  somebody\n"
    for name in ("empty.jpg", "half.jpg", "huge.png"):
        err = search(*where, "query", strange / name, cwd=root, code=1)
        assert f"got 1 of 1: {strange / name} (" in err
    assert "nearest: somebody" in search(
        *where, "--top_k=99", "query", strange / "good.png", cwd=root
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The subcommand must be one of enrol, query"),
        (["find", "x"], "got 'find'"),
        (["--gallery=", "stats"], "must be memory:"),
        (["--gallery=memory:", "stats"], "ends with the command"),
        (["query"], "Images or --description are required"),
        (
            ["enrol", "a", "b"],
            "enrol takes a folder, a CSV file, or a folder of embed.py, got a b",
        ),
        (["enrol", "nowhere"], "nowhere not found"),
        (["--gallery=http://127.0.0.1:9", "stats"], "docker compose up"),
        (["--after=noon", "query", "people.csv"], "Times are seconds since 1970 or ISO 8601"),
        (["query", "people.csv"], "got 1 of 1: people.csv (another type of file)"),
        (["--description=upred", "query"], "must be NAME=1 or NAME=0"),
        (["--description=upred=1", "query"], "attribute of the gallery (none), got upred"),
        (["--description=upred=1", "query", "a.png"], "Images or --description are required"),
        (["calibrate"], "must have a calibration to decide who matches"),
    ],
)
def test_search_invalid_arguments_exit_with_error(folder, arguments, message):
    root, _ = folder
    (root / "some.db").mkdir(exist_ok=True)
    err = search("--run=run", "--gallery=some.db", *arguments, cwd=root, code=1)
    assert message in err


def test_search_unknown_subcommand_prints_one_error_line(folder):
    root, _ = folder
    err = search("--run=run", "find", cwd=root, code=1)
    assert err.strip().splitlines()[-1].startswith("error: The subcommand must be one of enrol")


def test_search_gallery_of_other_model_exits_with_error(folder):
    root, rows = folder
    model = keras.saving.load_model(root / "run/model.keras")
    serving.export(model, root / "other", flip=False)
    where = "--gallery=faiss:other.faiss"
    search("--saved_model=other/1", where, "enrol", "people", cwd=root)
    for command in (("query", rows[0][0]), ("enrol", "people.csv")):
        if command[0] == "enrol":
            Image.open(root / rows[0][0]).save(root / "people" / "new.png")
            (root / "people.csv").write_text("path,identity,camera\npeople/new.png,new,1\n")
        err = search("--run=run", where, *command, cwd=root, code=1)
        assert "the model of the gallery" in err


def test_search_page_escapes_html(tmp_path):
    hit = {"image": "<a>.jpg", "identity": "<b>", "camera": "1", "distance": 0.5}
    page = visualize.search_page([{"image": tmp_path / "x", "answer": "<script>", "hits": [hit]}])
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert "camera 1" in page
    assert "distance 0.500" in page
    page = visualize.search_page([{"image": "x", "answer": "", "hits": [hit], "described": True}])
    assert "misfit 0.500" in page
    other = {**hit, "identity": "c"}
    shown = {"image": "x", "answer": "", "hits": [hit, other], "verdict": "possible match"}
    page = visualize.search_page([shown])
    assert page.count('<figure class="possible-match">') == page.count('<figure class="">') == 1


def test_people_csv_with_spaces_keeps_times(tmp_path):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.jpg")
    (tmp_path / "people.csv").write_text("path,identity,camera,time\n a.jpg , 0001,1, 12.5\n")
    images, times = _people(tmp_path / "people.csv")
    assert images.identity.tolist() == ["0001"]
    assert [times[path] for path in images.path.tolist()] == [12.5]


@pytest.mark.slow
def test_search_run_and_export_decide_by_calibration_of_training(tmp_path):
    data.synthetic.generate(tmp_path / "drawn", 12, 12, size=(64, 32))
    drawn = ("--dataset=market1501", "--data_dir=drawn")
    said("train.py", *drawn, *TINY, "--run=run", cwd=tmp_path)
    calibration = json.loads((tmp_path / "run/metrics.json").read_text())["calibration"]["1"]
    assert calibration["source"] == "validation persons of market1501"
    said("export.py", "--run=run", "--noranker", *drawn, cwd=tmp_path)
    about = json.loads((tmp_path / "export/run/1/export.json").read_text())["about"]
    assert about["calibration"] == calibration
    image = str(next((tmp_path / "drawn/query").glob("*.jpg")))
    for model in ("run", "export/run/1"):
        out = said("search.py", f"--model={model}", "verify", image, image, cwd=tmp_path)
        assert out.startswith("0.0000  match (")
