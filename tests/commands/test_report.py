"""HTML evaluation report: same scores as the JSON file, result lists, heat maps and errors."""

import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from processes import within

from keras_reid import evaluation, models, visualize

pytestmark = pytest.mark.slow  # an evaluation with the pretrained model

FLAGS = ("--rerank=k_reciprocal", "--rerank_options=k1=4,k2=2")


class Page(HTMLParser):
    """Tables by id as rows of texts, classes of figures, and loaded addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: list[str] = []
        self.sources: list[str] = []
        self.script = ""
        self._table = self._cell = self._in_script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag == "table":
            self._table = self.tables.setdefault(named["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = ""
        elif tag == "figure":
            self.figures.append(named.get("class", ""))
        elif tag == "script":
            self._in_script = True

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data
        if self._in_script:
            self.script += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1].append(self._cell.strip())
            self._cell = None
        elif tag == "script":
            self._in_script = None


@pytest.fixture(scope="module")
def made(pedestrians, tmp_path_factory):
    """The page of the model of the package on drawn pedestrians, and the scores as JSON."""
    cwd = tmp_path_factory.mktemp("report")
    flags = ("--dataset=market1501", f"--data_dir={pedestrians}", *FLAGS)
    code, out, err = within("evaluate.py", *flags, "--report=r.html", "--out=r.json", cwd=cwd)
    assert code == 0, err
    assert "report: r.html" in out
    return (cwd / "r.html").read_text(), json.loads((cwd / "r.json").read_text())


def percent(text: str) -> float:
    return float(text.removesuffix(" %"))


def test_report_numbers_match_json(made):
    text, metrics = made
    page = Page(text)
    assert json.loads(page.script) == metrics
    scores = {row[0]: row[1:] for row in page.tables["scores"]}
    assert scores[""] == ["before", "re-ranked"]
    for name in ("mAP", "mAP_trapezoid", "mINP"):
        assert percent(scores[name][1]) == pytest.approx(100 * metrics[name], abs=0.0051)
    for k in (1, 5, 10, 20):
        assert percent(scores[f"rank-{k}"][1]) == pytest.approx(
            100 * metrics["cmc"][k - 1], abs=0.0051
        )
    stamp = dict(page.tables["protocol"])
    assert stamp == {name: str(value) for name, value in metrics["protocol"].items()}
    pairs = dict(page.tables["verification"])
    assert (
        int(pairs["pairs of one person"].replace(",", ""))
        == (metrics["verification"]["genuine_pairs"])
    )
    assert percent(pairs["EER"]) == pytest.approx(100 * metrics["verification"]["eer"], abs=0.0051)
    head, *rows = page.tables["cameras"]
    for pair in metrics["camera_pairs"]:
        row = next(row for row in rows if row[0] == str(pair["query_camera"]))
        cell = row[head.index(str(pair["gallery_camera"]))]
        assert cell == f"{100 * pair['rank-1']:.1f} ({pair['queries']})"


def test_report_lists_mark_right_and_wrong_hits(made):
    text, _ = made
    page = Page(text)
    queries = page.figures.count("query")
    assert 1 <= queries <= 18
    assert {"right", "wrong"} <= {*page.figures}
    # A list: the query, then ten images or as many as there are; each with its heat.
    hits = page.figures.count("right") + page.figures.count("wrong")
    assert hits == 10 * queries
    images = [source for source in page.sources if source.startswith("data:image/jpeg")]
    assert len(images) == 2 * (queries + hits)


def test_report_html_loads_no_external_resources(made):
    text, _ = made
    assert all(source.startswith(("data:", "#")) for source in Page(text).sources)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.count("<svg") == 4
    assert len(text.encode()) < 5_000_000


def test_report_reranking_changes_are_counted():
    """Re-ranking moves the match of one query forward and of one query back."""
    query = evaluation.StoredFeatures({}, np.array([1, 2]), np.array([0, 0]))
    gallery = evaluation.StoredFeatures({}, np.array([1, 2, 3]), np.array([1, 1, 1]))
    before = np.array([[0.3, 0.2, 0.4], [0.2, 0.1, 0.3]])
    after = np.array([[0.1, 0.2, 0.4], [0.2, 0.3, 0.4]])
    results = {
        name: evaluation.rank(x, query, gallery, camera_pairs=True)
        for name, x in (("before", before), ("re-ranked", after))
    }
    report = visualize.Report(
        title="<b>",
        subtitle="&",
        results=results,
        metrics=results["re-ranked"].to_dict(),
        verification=evaluation.verify(*evaluation.pairs(before, query, gallery)),
        failures=evaluation.ranked_lists(after, query, gallery, [1]),
        successes=[],
        query=query,
        gallery=gallery,
        history=[
            {"epoch": 1, "seconds": 1.0, "loss": 2.0},
            {"epoch": 2, "loss": 1.0, "val_mAP": 0.5},
        ],
    )
    text = visualize.report_page(report)
    assert "<b>" not in text
    page = Page(text)
    assert page.tables["changes"][1:] == [
        ["query 0", "50.00 %", "100.00 %", "2", "1"],
        ["query 1", "100.00 %", "50.00 %", "1", "2"],
    ]
    counted = re.search(r'<p id="changed">(.*?)</p>', text, re.DOTALL).group(1)
    higher, lower, same, at_rank, won, lost = map(int, re.findall(r"\d+", counted))
    assert (higher, lower, same, won, lost) == (1, 1, 0, 1, 1)
    assert at_rank == 1
    assert page.figures.count("wrong") == 2
    assert page.figures.count("right") == 1
    assert text.count("<svg") == 6, "losses and scores of the training too"


def test_ranked_lists_skip_junk_and_break_ties_by_index():
    query = evaluation.Labels([7, 7], [0, 1])
    gallery = evaluation.Labels([7, -1, 8, 7, 9], [0, 1, 1, 1, 0])
    distances = np.array([[0.1, 0.1, 0.5, 0.5, 0.5], [0.2, 0.1, 0.3, 0.0, 0.2]])
    second, first = evaluation.ranked_lists(distances, query, gallery, [1, 0], length=3)
    assert first.gallery.tolist() == [2, 3, 4]
    assert first.same.tolist() == [False, True, False]
    assert second.query == 1
    assert second.gallery.tolist() == [0, 4, 2]
    assert second.distance.tolist() == [0.2, 0.2, 0.3]


def test_activation_map_matches_normalized_products():
    """The products of positions with the mean have the cosine of the embeddings as their mean."""
    random = np.random.default_rng(0)
    maps = np.abs(random.normal(size=(2, 4, 2, 8)))
    products = maps[1] @ maps[0].mean((0, 1))
    np.testing.assert_allclose(
        visualize.activation(maps[1], maps[0]), products / products.max(), rtol=1e-12
    )
    assert products.mean() == pytest.approx(maps[0].mean((0, 1)) @ maps[1].mean((0, 1)))
    own = visualize.activation(np.array([[[1.0, 0.0]], [[0.0, -3.0]]]))  # of mean (0.5, -1.5)
    np.testing.assert_allclose(own, [[1 / 9], [1.0]])
    picture = visualize.draw_heat(np.full((8, 4, 3), 100, np.uint8), np.eye(2)[:, :1], 8)
    red = np.asarray(picture)[:, 2]
    assert red[0, 0] > red[0, 1] + 50
    assert len({*red[-1].tolist()}) == 1


def test_feature_maps_mean_equals_features(made):
    model = models.build("tiny", 3, (32, 16), weights="none")
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 16, 3), np.uint8)
    maps = np.asarray(models.feature_maps(model)(image))
    np.testing.assert_allclose(maps.mean((1, 2)), model(image)["features"], rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--protocol=viper",), "excludes --protocol=viper, which ranks random halves"),
        (("--report=old.html",), "--report must be a new path"),
    ],
)
def test_report_invalid_options_exit_with_error(flags, message, tmp_path):
    (tmp_path / "old.html").write_text("")
    features = {"embedding": np.eye(4, dtype=np.float32)}
    for name in ("q", "g"):
        evaluation.save_features(tmp_path / f"{name}.npz", features, np.arange(4), np.zeros(4, int))
    given = ("--features=q.npz,g.npz", "--report=new.html", *flags)
    code, _, err = within("evaluate.py", *given, cwd=tmp_path)
    assert code == 1
    assert message in err


def test_report_from_feature_files_has_no_images(tmp_path):
    random = np.random.default_rng(0)
    for name, camera in (("q", 0), ("g", 1)):
        embedding = np.repeat(np.eye(6), 2, axis=0) + 0.3 * random.normal(size=(12, 6))
        features = {"embedding": embedding.astype(np.float32)}
        evaluation.save_features(
            tmp_path / f"{name}.npz", features, np.repeat(np.arange(6), 2), np.full(12, camera)
        )
    flags = ("--features=q.npz,g.npz", "--report=new.html")
    code, _, err = within("evaluate.py", *flags, cwd=tmp_path)
    assert code == 0, err
    text = (tmp_path / "new.html").read_text()
    assert "without pictures" in text
    assert "<img" not in text
    assert "query" in Page(text).figures


def test_report_without_matplotlib_exits_with_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = within("evaluate.py", "--features=q,g", "--report=r.html", cwd=tmp_path)
    assert code == 1
    assert "matplotlib is not installed. Run pip install '.[plots]'" in err
