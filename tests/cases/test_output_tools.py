"""Outputs that the usual tools open."""

import contextlib
import html.parser
import io
import json
from pathlib import Path

import numpy as np
import pytest
from processes import within

from keras_reid import evaluation
from keras_reid.data.mot import Boxes, read_mot, write_mot
from keras_reid.scale.creation import create
from keras_reid.scale.listing import ImageEntry

arrow = pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
parquet = pytest.importorskip("pyarrow.parquet")
pandas = pytest.importorskip("pandas", reason="pandas is not installed")

COUNT, DIMENSION = 12, 8
ABOUT = {"images": "x", "shard_size": 5, "flip": False, "fingerprint": "m"}
ROWS = [ImageEntry(f"/images/{i:02}.jpg", f"p{i % 3}", f"c{i % 2}") for i in range(COUNT)]
VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)).astype(np.float32)


@pytest.fixture
def embedded(tmp_path):
    """A folder of embed.py with three parts; the last image did not decode."""
    folder = create(tmp_path / "out", ROWS, 5, ABOUT)
    first = 0
    for number, size in enumerate(folder.sizes):
        rows = np.arange(size - (number == 2))
        vectors = VECTORS[first : first + len(rows)]
        folder.write(number, folder.listed(number), rows, vectors, ["digest"] * size)
        first += size
    return folder


READERS = {
    "pandas, folder": pandas.read_parquet,
    "pyarrow, folder": lambda folder: parquet.read_table(folder).to_pandas(),
    "pyarrow, data set": lambda folder: arrow.dataset.dataset(folder).to_table().to_pandas(),
    # As DuckDB, Dask and Polars name the files.
    "pandas, pattern": lambda folder: pandas.concat(
        map(pandas.read_parquet, sorted(Path(folder).glob("*.parquet"))), ignore_index=True
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mapped", [False, True])
def test_embeddings_folder_is_read_by_parquet_tools(embedded, reader, mapped):
    pytest.importorskip("pyarrow.dataset")
    if mapped:
        embedded.mapped()  # writes a further file
    with embedded.claimed(0):  # while another process is at work
        table = READERS[reader](str(embedded.folder))
    assert list(table) == ["path", "identity", "camera", "embedding", "digest"]
    assert table["path"].tolist() == [row.path for row in ROWS]
    assert table["identity"].tolist() == [row.identity for row in ROWS]
    np.testing.assert_array_equal(np.stack(table["embedding"][: COUNT - 1]), VECTORS[:-1])
    assert table["embedding"].isna().tolist() == [False] * (COUNT - 1) + [True]


def test_embeddings_folder_other_files_begin_with_underscore(embedded):
    embedded.mapped()
    names = {file.name for file in embedded.folder.iterdir() if not file.name.startswith("part-")}
    assert names == {"_embed.json", "_embedding.npy", "_listing"}
    np.testing.assert_array_equal(np.load(embedded.folder / "_embedding.npy"), VECTORS[:-1])
    assert json.loads((embedded.folder / "_embed.json").read_text()) == ABOUT


@pytest.fixture
def features(tmp_path):
    """Features with names beyond ASCII, a comma, a quote and a leading zero."""
    names = np.array(["Ümit", 'a "b", c', "李雷", "0007"]).repeat(6)
    random = np.random.default_rng(0)
    vectors = np.eye(4, 8).repeat(6, 0) + 0.05 * random.normal(size=(24, 8))
    for side in ("query", "gallery"):
        vectors = vectors[::-1]
        names = names[::-1]
        evaluation.save_features(
            tmp_path / f"{side}.npz", {"embedding": vectors}, names, np.arange(24) % 3
        )
    return tmp_path, names


def test_saved_features_are_read_by_numpy_without_pickle(features):
    folder, names = features
    with np.load(folder / "gallery.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["camera", "embedding", "identity"]
        assert arrays["identity"].tolist() == names.tolist()


def test_cluster_csv_is_read_by_pandas(features):
    folder, names = features
    flags = ("--features=gallery.npz", "--csv=groups.csv", "--contact_sheet=")
    code, _, err = within("cluster.py", *flags, cwd=folder)
    assert code == 0, err
    table = pandas.read_csv(folder / "groups.csv")
    assert len(table) == len(names)
    assert table.notna().all(axis=None)


class Page(html.parser.HTMLParser):
    """Open elements of a page, as a browser counts them, and its declarations."""

    VOID = ("meta", "img", "br", "hr", "link", "input", "path", "use")

    def __init__(self):
        super().__init__()
        self.open, self.charsets, self.declared, self.text = [], [], [], []

    def handle_decl(self, declaration):
        self.declared.append(declaration)

    def handle_starttag(self, tag, attributes):
        if tag == "meta":
            self.charsets += [value for name, value in attributes if name == "charset"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append(text)


def test_report_and_scores_are_read_by_browser_and_json(features):
    pytest.importorskip("matplotlib", reason="Matplotlib, extra plots, is not installed")
    folder, _ = features
    flags = ("--features=query.npz,gallery.npz", "--report=r.html", "--out=s.json", "--verify")
    code, _, err = within("evaluate.py", *flags, cwd=folder)
    assert code == 0, err
    page = Page()
    page.feed((folder / "r.html").read_bytes().decode("utf-8"))
    page.close()
    assert page.declared == ["DOCTYPE html"]
    assert page.charsets == ["utf-8"]
    assert page.open == []
    assert 'a "b", c' in "".join(page.text)

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    json.loads((folder / "s.json").read_text("utf-8"), parse_constant=refuse)


def test_tracks_are_read_by_trackeval(tmp_path):
    trackeval = pytest.importorskip("trackeval", reason="TrackEval is not installed")
    frame = np.arange(1, 6).repeat(2)
    box = np.stack([20.0 * np.arange(10), np.full(10, 3.25), np.full(10, 12), np.full(10, 40)], 1)
    tracks = Boxes(frame, np.tile([3, 12], 5), box, np.array([-0.5, 1e-9, 1, 0.25, 1e6] * 2))
    for place in ("gt/S1/gt/gt.txt", "tr/mine/data/S1.txt"):
        (tmp_path / place).parent.mkdir(parents=True)
        write_mot(tracks, tmp_path / place)
    config = {
        "GT_FOLDER": str(tmp_path / "gt"),
        "TRACKERS_FOLDER": str(tmp_path / "tr"),
        "TRACKERS_TO_EVAL": ["mine"],
        "BENCHMARK": "MOT15",
        "SEQ_INFO": {"S1": 5},
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        videos = trackeval.datasets.MotChallenge2DBox(config)
        raw = videos.get_raw_seq_data("mine", "S1")
    again = read_mot(tmp_path / "tr/mine/data/S1.txt")
    np.testing.assert_allclose(np.concatenate(raw["tracker_dets"]) - [1, 1, 0, 0], again.box)
    np.testing.assert_array_equal(np.concatenate(raw["tracker_ids"]), tracks.identity)
    np.testing.assert_allclose(again.box, tracks.box)
