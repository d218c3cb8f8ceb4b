"""Commands with pose, attributes and tracklets: training, evaluation, export and search."""

import json
from pathlib import Path

import pytest
from processes import call, within

from keras_reid.data import synthetic

pytestmark = pytest.mark.slow  # processes that train and embed

TINY = ["--recipe=tiny", "--height=32", "--width=16", "--epochs=1", "--num_identities_per_batch=4"]
ROWS = {
    "pose": ["--num_instances=2", "--pose", "--pose_width=8", "--keypoints=drawn/keypoints.csv"],
    "attributes": [
        "--num_instances=2",
        "--attribute_weight=1",
        "--attributes=drawn/attributes.csv",
    ],
    "tracklets": ["--num_instances=2", "--temporal=attention", "--frames=2"],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set `drawn` and a run of each kind."""
    cwd = tmp_path_factory.mktemp("enhance")
    options = {"train_identities": 8, "test_identities": 4, "images_per_camera": 3}
    synthetic.generate(cwd / "drawn", **options, cameras=2, distractors=3, size=(64, 32))
    for name, flags in ROWS.items():
        data = ("--dataset=synthetic", "--data_dir=drawn", f"--run={name}")
        code, out, err = call("train.py", *TINY, *flags, *data, cwd=cwd)
        assert code == 0, err
        assert "after training:  mAP" in out
    return cwd


def evaluate(cwd: Path, *flags: str, code: int = 0) -> str:
    returned, out, err = within("evaluate.py", *flags, cwd=cwd)
    assert returned == code, err
    return err if code else out


def test_train_extra_heads_are_recorded_in_run(drawn: Path) -> None:
    history = {
        name: json.loads((drawn / name / "history.jsonl").read_text().splitlines()[0])
        for name in ROWS
    }
    assert "part_logits_visible_identity" in history["pose"]
    assert "attributes_attribute" in history["attributes"]
    flags = json.loads((drawn / "attributes/flags.json").read_text())
    assert tuple(flags["attribute_names"]) == synthetic.ATTRIBUTES
    metrics = json.loads((drawn / "tracklets/metrics.json").read_text())
    assert metrics["after"]["protocol"]["name"] == "mars"


def test_evaluate_pose_run_scores_embeddings_and_visible_parts(drawn: Path) -> None:
    out = evaluate(drawn, "--run=pose")
    scores = json.loads((drawn / "pose/metrics.json").read_text())["after"]
    assert f"{100 * scores['mAP']:.2f} %" in out
    assert "distance              visible" in evaluate(drawn, "--run=pose", "--distance=visible")
    assert "by the recipe pose" in evaluate(drawn, "--run=attributes", "--distance=visible", code=1)


def test_evaluate_attributes_reports_accuracy_and_filters(drawn: Path) -> None:
    flags = ["--run=attributes", "--attributes=drawn/attributes.csv", "--attribute_filter=0.6"]
    out = evaluate(drawn, *flags, "--out=scores.json")
    assert "mean (mA)" in out
    assert "attributes with a probability of at least 0.6 keep" in out
    scores = json.loads((drawn / "scores.json").read_text())
    assert 0 <= scores["attributes"]["mA"] <= 1
    assert scores["protocol"]["distance"] == "euclidean, attributes agreeing"
    (drawn / "other.csv").write_text("identity,hat\n0009,1\n")
    err = evaluate(drawn, "--run=attributes", "--attributes=other.csv", code=1)
    assert "must be a table with the attributes of attributes: backpack" in err
    err = evaluate(drawn, "--run=pose", "--attribute_filter=0.9", code=1)
    assert "predicts no attributes" in err


@pytest.mark.parametrize("kind", ["pooled", "mean_min"])
def test_evaluate_tracklets_with_image_model_uses_mars_protocol(drawn: Path, kind: str) -> None:
    flags = ["--run=attributes", "--tracklets", f"--set_distance={kind}"]
    out = evaluate(drawn, *flags, "--rerank=k_reciprocal", "--rerank_options=k1=4,k2=2")
    assert "protocol              mars" in out
    assert "re-ranking            k_reciprocal" in out


def test_evaluate_tracklet_model_matches_saved_features(drawn: Path) -> None:
    said = evaluate(drawn, "--run=tracklets", "--tracklets", "--save_features=kept")
    assert "protocol              mars" in said
    stored = "--features=kept/query.npz,kept/gallery.npz"
    again = evaluate(drawn, stored, "--protocol=mars")
    scores = [line for line in said.splitlines() if line.startswith(("mAP", "rank-1"))]
    assert scores
    assert [line for line in again.splitlines() if line.startswith(("mAP", "rank-1"))] == scores
    err = evaluate(drawn, "--run=tracklets", code=1)
    assert "with the columns tracklet for tracklets, got PersonImages without" in err


def test_csv_with_tracklets_trains_images_and_ranks_tracklets(drawn: Path) -> None:
    """Frame by frame where the model is one of images, and as images where it is exported."""
    rows = ["path,identity,camera,split,tracklet"]
    for split, folder in (
        ("train", "bounding_box_train"),
        ("query", "query"),
        ("gallery", "bounding_box_test"),
    ):
        for file in sorted((drawn / "drawn" / folder).iterdir()):
            person, camera = file.name[:4], file.name[6]
            if person.isdigit():
                rows.append(
                    f"drawn/{folder}/{file.name},{person},{camera},{split},{person}{camera}"
                )
    (drawn / "list.csv").write_text("\n".join(rows) + "\n")
    given = ("--dataset=csv", "--data_dir=list.csv", "--run=listed")
    code, out, err = call("train.py", *TINY, "--num_instances=2", *given, cwd=drawn)
    assert code == 0, err
    assert "16 tracklets" in out
    out = evaluate(drawn, "--run=listed")
    assert "protocol              mars" in out
    assert "queries               8 valid" in out
    err = evaluate(drawn, "--run=listed", "--distance=local", code=1)
    assert "--tracklets excludes --distance" in err
    code, out, err = within("export.py", "--run=listed", "--noranker", cwd=drawn)
    assert code == 0, err
    assert "scores ok" in out


@pytest.mark.parametrize("name", ["pose", "tracklets"])
def test_export_multi_input_model_in_other_format_raises(drawn: Path, name: str) -> None:
    code, out, err = within("export.py", f"--run={name}", "--noranker", cwd=drawn)
    assert code == 0, err
    assert "parity ok" in out
    code, _, err = within("export.py", f"--run={name}", "--format=litert", cwd=drawn)
    assert code == 1
    assert "--format must be saved_model for inputs" in err


def test_search_description_returns_hits_by_misfit(drawn: Path) -> None:
    pytest.importorskip("faiss")
    run = ("--run=attributes", "--gallery=faiss:people.faiss")
    rows = ["path,identity,camera"]
    for file in sorted((drawn / "drawn/query").iterdir()):
        rows.append(f"drawn/query/{file.name},{file.name[:4]},{file.name[6]}")
    (drawn / "people.csv").write_text("\n".join(rows) + "\n")
    code, _, err = within("search.py", *run, "enrol", "people.csv", cwd=drawn)
    assert code == 0, err
    described = ("--description=backpack=1,upblack=0", "--format=json", "--top_k=3")
    code, out, err = within("search.py", *run, *described, "query", cwd=drawn)
    assert code == 0, err
    (query,) = json.loads(out)["queries"]
    costs = [hit["distance"] for hit in query["hits"]]
    assert costs == sorted(costs)
    assert len(costs) == 3
    code, out, err = within("search.py", *run, "--description=hat=1", "query", cwd=drawn)
    assert "best fits of hat=1" in out
    code, _, err = within("search.py", *run, "--description=beard=1", "query", cwd=drawn)
    assert code == 1
    assert "got beard" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pose"], "--keypoints=FILE and --pose (or a recipe with it) require each other"),
        (["--keypoints=drawn/keypoints.csv"], "--keypoints=FILE and --pose (or a recipe"),
        (["--attribute_weight=1"], "--attributes=FILE and --attribute_weight (or a recipe"),
        (["--attributes=drawn/attributes.csv"], "Set both or none"),
        (["--temporal=median"], "--temporal must be one of mean, max, attention, recurrent"),
        (["--temporal=mean", "--stripes=4"], "--stripes must be 0 with temporal, got 4"),
        (["--pose", "--parts=2"], "each define the embedding"),
        (
            ["--pose", "--keypoints=drawn/keypoints.csv", "--augment=augmix"],
            "--augment must be one of none, flip, crop, default",
        ),
    ],
)
def test_train_invalid_recipe_exits_with_error(drawn: Path, flags: list[str], message: str) -> None:
    data = ("--dataset=synthetic", "--data_dir=drawn", "--run=refused")
    code, _, err = within("train.py", *TINY, *flags, *data, cwd=drawn)
    assert code == 1
    assert message in err
    assert not (drawn / "refused").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run=pose", "--set_distance=min"], "--set_distance needs --tracklets"),
        (
            ["--run=pose", "--tracklets", "--set_distance=min", "--save_features=x"],
            "--set_distance excludes --save_features",
        ),
        (["--features=a.npz,b.npz", "--tracklets"], "need images, not --features"),
        (["--run=pose", "--tracklets", "--distance=visible"], "--tracklets excludes --distance"),
        (["--run=attributes", "--attribute_filter=0.4"], "must be in (0.5, 1], got 0.4"),
        (["--run=attributes", "--attribute_filter=0.9", "--rerank=aqe"], "excludes --rerank"),
        (
            ["--run=attributes", "--tracklets", "--set_distance=min", "--rerank=aqe"],
            "--set_distance needs --rerank=none or k_reciprocal",
        ),
    ],
)
def test_evaluate_invalid_options_exit_with_error(
    drawn: Path, flags: list[str], message: str
) -> None:
    assert message in evaluate(drawn, *flags, code=1)
