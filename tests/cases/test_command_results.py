"""Return values of the command functions, and the identities that `search.py list` prints."""

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import match_within
from PIL import Image
from processes import within

from keras_reid import data, evaluation, gallery, models, scale, tracking
from keras_reid.cli import report
from keras_reid.cli.cluster import ClusterOptions, cluster
from keras_reid.cli.embed import EmbedOptions, embed
from keras_reid.cli.evaluate import EvaluateOptions, evaluate
from keras_reid.cli.export import ExportOptions, export
from keras_reid.cli.search import Enrolment, QueryResult, SearchOptions, search
from keras_reid.cli.search_results import write_queries
from keras_reid.cli.terminal import check_outputs, check_picture
from keras_reid.cli.track import TrackOptions, track
from keras_reid.cli.train import TrainOptions, train
from keras_reid.errors import InputError
from keras_reid.training.runs import Run

pytest.importorskip("faiss", reason="faiss, extra gallery, is not installed")

SIZE = (32, 16)
NAMES = ("anna", "ben 2", "ben 10")
LISTED = {"anna": 1, "ben 2": 2, "ben 10": 3}  # images of each, in natural order


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained model, and a folder of images for each of three persons."""
    root = tmp_path_factory.mktemp("results")
    run = Run(root / "run")
    run.start({"flip": False, "dataset": "folder", "data_dir": str(root / "people")})
    run.save_models([models.build("tiny", 3, SIZE, weights="none")])
    run.finish({})
    random = np.random.default_rng(0)
    for name, count in LISTED.items():
        (root / "people" / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (*SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(root / "people" / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def enrolled(folder: Path) -> tuple[str, Enrolment]:
    """Address of a gallery of these persons, and the result of the enrolment."""
    uri = f"faiss:{folder / 'people.faiss'}"
    words = ("enrol", str(folder / "people"))
    with gallery.open(uri) as people:
        people.calibration = match_within(1e-3)
    return uri, search(SearchOptions(run=str(folder / "run"), gallery=uri, words=words))


def test_search_enrol_returns_counts(enrolled: tuple[str, Enrolment]) -> None:
    assert enrolled[1] == Enrolment(added=6)


def test_search_query_results_equal_printed_json(
    folder: Path, enrolled: tuple[str, Enrolment], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(folder / "people/anna/0.png"), str(folder / "people/ben 10/2.png")]
    options = SearchOptions(
        run=str(folder / "run"),
        gallery=enrolled[0],
        words=("query", *paths),
        top_k=2,
        format="json",
    )
    results = search(options)
    assert [type(result) for result in results] == [QueryResult, QueryResult]
    assert [result.identity for result in results] == ["anna", "ben 10"]
    assert [result.hits[0].image for result in results] == paths
    assert [len(result.hits) for result in results] == [2, 2]
    printed = json.loads(capsys.readouterr().out)
    assert printed["match_probability"] == 0.96
    assert [result.decision.verdict for result in results] == ["match", "match"]
    assert printed["queries"] == [result.to_dict() for result in results]


def test_search_query_folder_is_written_in_format_of_suffix(
    folder: Path,
    enrolled: tuple[str, Enrolment],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"run": str(folder / "run"), "gallery": enrolled[0], "top_k": 2}
    words = ("query", str(folder / "people/anna"), str(folder / "people/ben 10/2.png"))
    answers = search(SearchOptions(words=words, out=str(tmp_path / "a.csv"), **options))
    assert capsys.readouterr().out == f"results: {tmp_path / 'a.csv'}\n"
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    count = LISTED["anna"] + 1
    assert len(answers) == count
    assert [row["rank"] for row in rows] == ["1", "2"] * count
    assert [row["query"] for row in rows[::2]] == [one.image for one in answers]
    assert [row["match"] for row in rows[::2]] == ["anna"] * (count - 1) + ["ben 10"]
    assert float(rows[0]["distance"]) == pytest.approx(0, abs=1e-3)
    search(SearchOptions(words=words, out=str(tmp_path / "a.json"), **options))
    assert len(json.loads((tmp_path / "a.json").read_text())["queries"]) == count
    search(SearchOptions(words=words, out=str(tmp_path / "a.html"), **options))
    assert (tmp_path / "a.html").read_text().count("<img ") == 3 * count
    search(SearchOptions(words=words, out=str(tmp_path / "a"), format="table", **options))
    assert "ben 10/2.png: match: ben 10" in (tmp_path / "a").read_text()


@pytest.mark.parametrize(
    ("words", "flags", "message"),
    [
        (("stats",), {"format": "csv"}, "`format` must be one of table, json for stats, got 'csv'"),
        (("list",), {"out": "x.html"}, "`format` must be one of table, json, csv for list"),
        (("remove", "a"), {"out": "x.txt"}, "remove has no results to write"),
        (("list",), {"out": "x.pdf"}, r"`out` must be a path that ends in \.txt, \.json, \.csv"),
    ],
)
def test_search_other_format_raises(
    words: tuple[str, ...], flags: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(SearchOptions(words=words, gallery="file:none", **flags))


@pytest.mark.parametrize(
    ("words", "flags", "message"),
    [
        (("stats",), {"dataset": "csv"}, "--dataset is a flag of calibrate, not stats"),
        (("calibrate",), {"data_dir": "x"}, "--dataset and --data_dir require each other"),
    ],
)
def test_search_data_set_flags_of_other_subcommands_raise(
    words: tuple[str, ...], flags: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(SearchOptions(words=words, gallery="file:none", **flags))


def test_search_query_without_hits_has_a_line_in_csv() -> None:
    answer = QueryResult("a.png", None, [], None, "no images")
    options = SearchOptions(format="csv")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        write_queries(options, [answer])
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert row["query"] == "a.png"
    assert not any(value for name, value in row.items() if name != "query")


def test_search_verify_and_list_print_csv(
    folder: Path, enrolled: tuple[str, Enrolment], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"run": str(folder / "run"), "gallery": enrolled[0], "format": "csv"}
    search(SearchOptions(words=("list",), **options))
    table = capsys.readouterr().out
    assert table == "".join(["identity,images\n", *(f"{n},{c}\n" for n, c in LISTED.items())])
    image = str(folder / "people/anna/0.png")
    search(SearchOptions(words=("verify", image, image), **options))
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["first"], row["verdict"]) == (image, "match")


def test_search_query_below_possible_probability_returns_no_identity(
    folder: Path, enrolled: tuple[str, Enrolment]
) -> None:
    words = ("query", str(folder / "people/anna/0.png"))
    options = SearchOptions(
        run=str(folder / "run"),
        gallery=enrolled[0],
        words=words,
        match_probability=1.0,
        possible_probability=1.0,
    )
    (result,) = search(options)
    assert result.identity is None
    assert result.decision.verdict == "no match"
    assert result.text.startswith("no match (nearest: anna")
    assert result.hits[0].identity == "anna"


def test_search_query_of_uncalibrated_model_returns_no_verdict(
    folder: Path, tmp_path: Path
) -> None:
    uri, run = f"faiss:{tmp_path / 'people.faiss'}", str(folder / "run")
    search(SearchOptions(run=run, gallery=uri, words=("enrol", str(folder / "people"))))
    words = ("query", str(folder / "people/anna/0.png"))
    (result,) = search(SearchOptions(run=run, gallery=uri, words=words))
    assert (result.decision, result.identity) == (None, None)
    assert result.text == "nearest: anna (not calibrated)"
    assert result.to_dict()["verdict"] is None
    with pytest.raises(InputError, match="must have a calibration"):
        search(SearchOptions(run=run, gallery=uri, words=("calibrate",)))


def test_search_verify_compares_images_folders_and_tables(
    folder: Path,
    enrolled: tuple[str, Enrolment],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    anna, ben = str(folder / "people/anna/0.png"), str(folder / "people/ben 10/2.png")
    options = {"run": str(folder / "run"), "gallery": enrolled[0]}
    (pair,) = search(SearchOptions(words=("verify", anna, anna), **options))
    assert pair.distance == pytest.approx(0, abs=1e-5)
    assert pair.decision.verdict == "match"
    capsys.readouterr()
    table = tmp_path / "pairs.csv"
    table.write_text(f"first,second\n{anna},{anna}\n{anna},{ben}\n")
    pairs = search(SearchOptions(words=("verify", str(table)), format="json", **options))
    printed = json.loads(capsys.readouterr().out)
    assert printed["match_probability"] == 0.96
    assert printed["pairs"] == [pair.to_dict() for pair in pairs]
    assert [(pair.first, pair.second) for pair in pairs] == [(anna, anna), (anna, ben)]
    folders = ("verify", str(folder / "people/anna"), str(folder / "people"))
    found = search(SearchOptions(words=folders, **options))
    assert len(found) == LISTED["anna"] * sum(LISTED.values())
    (pair,) = search(SearchOptions(words=("verify", anna, ben), run=options["run"]))
    assert pair.decision is None  # neither a gallery nor a calibration of the run
    with pytest.raises(InputError, match="columns first,second"):
        search(SearchOptions(words=("verify", str(tmp_path / "no.csv")), **options))
    table.write_text("first,second\n")
    with pytest.raises(InputError, match="must have at least one pair, got none"):
        search(SearchOptions(words=("verify", str(table)), **options))
    with pytest.raises(InputError, match=r"not found\. Enrol"):
        search(SearchOptions(words=("verify", anna, ben), gallery="faiss:no.faiss"))
    with pytest.raises(InputError, match="`format` must be one of table, json, csv for verify"):
        search(SearchOptions(words=("verify", anna, ben), out=str(tmp_path / "x.html")))


def test_search_list_returns_identities_in_natural_order(enrolled: tuple[str, Enrolment]) -> None:
    counts = search(SearchOptions(gallery=enrolled[0], words=("list",)))
    assert list(counts.items()) == list(LISTED.items())


def test_search_list_prints_identities_with_counts(
    enrolled: tuple[str, Enrolment], tmp_path: Path
) -> None:
    code, out, err = within("search.py", f"--gallery={enrolled[0]}", "list", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out == "1  anna\n2  ben 2\n3  ben 10\n"
    flags = (f"--gallery={enrolled[0]}", "--format=json")
    _, out, _ = within("search.py", *flags, "list", cwd=tmp_path)
    assert json.loads(out) == LISTED


def test_search_list_aligns_counts_and_keeps_unicode_names(tmp_path: Path) -> None:
    uri = f"faiss:{tmp_path / 'people.faiss'}"
    identities = ["Zoë"] * 10 + ["王伟"]
    with gallery.open(uri) as people:
        people.enrol(np.eye(11, dtype=np.float32), identities, model_fingerprint="x")
    _, out, _ = within("search.py", f"--gallery={uri}", "list", cwd=tmp_path)
    assert out == "10  Zoë\n 1  王伟\n"
    _, out, _ = within("search.py", f"--gallery={uri}", "--format=json", "list", cwd=tmp_path)
    assert "王伟" in out


def test_search_list_of_missing_gallery_or_with_words_exits_with_1(
    enrolled: tuple[str, Enrolment], tmp_path: Path
) -> None:
    code, _, err = within("search.py", "--gallery=faiss:no.faiss", "list", cwd=tmp_path)
    assert code == 1
    assert "no.faiss" in err
    assert not list(tmp_path.iterdir())
    code, _, err = within("search.py", f"--gallery={enrolled[0]}", "list", "anna", cwd=tmp_path)
    assert code == 1
    assert "list takes no arguments" in err


def test_search_stats_and_remove_return_their_numbers(tmp_path: Path) -> None:
    uri = f"faiss:{tmp_path / 'people.faiss'}"
    with gallery.open(uri) as people:
        people.enrol(np.eye(3, dtype=np.float32), ["a", "b", "b"], model_fingerprint="x")
    stats = search(SearchOptions(gallery=uri, words=("stats",)))
    assert (stats["rows"], stats["identities"], stats["width"]) == (3, 2, 3)
    assert search(SearchOptions(gallery=uri, words=("remove", "b"))) == 2
    assert search(SearchOptions(gallery=uri, words=("list",))) == {"a": 1}


@pytest.mark.slow
def test_search_calibrate_returns_the_kept_calibration(folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    data.synthetic.generate(drawn, train_identities=1, test_identities=12, size=SIZE)
    uri = f"faiss:{tmp_path / 'people.faiss'}"
    gallery.open(uri).close()
    options = SearchOptions(
        run=str(folder / "run"),
        gallery=uri,
        dataset="market1501",
        data_dir=str(drawn),
        words=("calibrate",),
    )
    calibration = search(options)
    assert isinstance(calibration, evaluation.MatchCalibration)
    with gallery.open(uri) as people:
        assert people.calibration == calibration


def test_cluster_returns_labels_with_paths(folder: Path) -> None:
    options = ClusterOptions(run=str(folder / "run"), images=str(folder / "people"), min_samples=1)
    result = cluster(options)
    owners = [Path(path).parent.name for path in result.path]
    assert owners == [name for name, count in LISTED.items() for _ in range(count)]
    assert result.labels.shape == (6,)
    assert result.scores is None


def test_embed_returns_the_written_embeddings(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
    shards = embed(
        EmbedOptions(
            run=str(folder / "run"), images=str(folder / "people"), out=str(tmp_path / "out")
        )
    )
    assert isinstance(shards, scale.Shards)
    assert len(shards) == 6


def test_evaluate_returns_ranking_and_verification(tmp_path: Path) -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    identity, camera = np.repeat(np.arange(4), 2), np.tile([1, 2], 4)
    for name, rows in (("query", slice(0, 8, 2)), ("gallery", slice(1, 8, 2))):
        np.savez(
            tmp_path / f"{name}.npz",
            embedding=x[rows],
            identity=identity[rows],
            camera=camera[rows],
        )
    files = [str(tmp_path / "query.npz"), str(tmp_path / "gallery.npz")]
    result = evaluate(EvaluateOptions(features=files))
    assert isinstance(result, evaluation.RankingResult)
    assert (result.mAP, result.verification, result.attributes) == (1, None, None)
    result = evaluate(EvaluateOptions(features=files, verify=True))
    assert result.verification.eer == 0


def test_track_returns_tracks_and_scores(tmp_path: Path) -> None:
    lines = [f"{frame},1,{10 + frame},10,8,16,1,1,1" for frame in range(1, 7)]
    (tmp_path / "gt.txt").write_text("\n".join(lines))
    (tmp_path / "frames").mkdir()
    for frame in range(1, 7):
        Image.new("RGB", (64, 48)).save(tmp_path / "frames" / f"{frame}.png")
    options = TrackOptions(
        source=str(tmp_path / "frames"),
        detections=str(tmp_path / "gt.txt"),
        ground_truth=str(tmp_path / "gt.txt"),
        appearance=False,
    )
    result = track(options)
    assert result.frame.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(set(result.identity)) == 1
    assert isinstance(result.scores, tracking.TrackingScores)
    assert result.scores.mota == 1
    assert result.names == {}


def test_train_check_only_returns_report(tmp_path: Path) -> None:
    data.synthetic.generate(tmp_path / "drawn", train_identities=4, test_identities=4, size=SIZE)
    options = TrainOptions(
        dataset="market1501", data_dir=str(tmp_path / "drawn"), check_only=True, run="unused"
    )
    report = train(options)
    assert report.ok
    assert set(report.sizes) == {"train", "query", "gallery"}


@pytest.mark.slow
def test_export_returns_folder_of_version(folder: Path, tmp_path: Path) -> None:
    data.synthetic.generate(tmp_path / "drawn", train_identities=4, test_identities=4, size=SIZE)
    version = export(
        ExportOptions(
            run=str(folder / "run"),
            dataset="market1501",
            data_dir=str(tmp_path / "drawn"),
            export_dir=str(tmp_path / "export"),
            ranker=False,
        )
    )
    assert version == tmp_path / "export/run/1"


def test_search_unknown_word_raises_with_known_words() -> None:
    with pytest.raises(InputError, match="enrol, query, verify, list, remove, stats, calibrate"):
        search(SearchOptions(gallery="faiss:x", words=("lst",)))


def test_evaluate_rerank_options_accept_integers_and_floats() -> None:
    options = EvaluateOptions(rerank="k_reciprocal", rerank_options=["k1=20", "lambda_value=0.3"])
    assert options.rerank_numbers == {"k1": 20, "lambda_value": 0.3}
    assert isinstance(options.rerank_numbers["k1"], int)


def test_evaluate_report_lists_start_with_hardest_failure() -> None:
    distances = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    query, gallery = evaluation.Labels([1, 2, 3], [0] * 3), evaluation.Labels([1, 2, 3], [1] * 3)
    failures, successes = report._chosen(evaluation.rank(distances, query, gallery))
    assert failures == [2, 1]
    assert successes == [0]


def test_outputs_folder_or_not_picture_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`out` must be a new path"):
        check_outputs(out=str(tmp_path), csv=None)
    with pytest.raises(InputError, match=r"`contact_sheet` must be a path that ends in \.\w+"):
        check_picture(contact_sheet="sheet.txt")


def test_dataset_options_missing_value_raises() -> None:
    with pytest.raises(InputError, match="An evaluation uses images: --dataset and --data_dir"):
        evaluate(EvaluateOptions(data_dir="x"))


@pytest.mark.parametrize("flag", ["tracklets", "attribute_filter"])
def test_evaluate_options_of_images_with_stored_features_raise(flag: str) -> None:
    with pytest.raises(InputError, match="need images, not --features"):
        EvaluateOptions(features=["q.npz", "g.npz"], **{flag: 0.9})
