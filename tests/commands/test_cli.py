"""Command-line programs: training, evaluation, export, flags, help and error messages."""

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absl.flags
import numpy as np
import pytest
from processes import ROOT, TINY, Command, call, said, within

from keras_reid.cli import embed, options, track
from keras_reid.cli.evaluate import EvaluateOptions, evaluate
from keras_reid.cli.options import Command as Script
from keras_reid.cli.options import define
from keras_reid.demo import __main__ as demo
from keras_reid.errors import InputError
from keras_reid.training.recipe import setting_fields


def train(
    pedestrians: Path, cwd: Path, *more: str, act: Callable[..., Any] = call
) -> tuple[int, str, str]:
    """A small training in the run folder `run`."""
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    return act("train.py", *data, "--run=run", *TINY, *more, cwd=cwd)


@pytest.fixture(scope="module")
def trained(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the folder with the trained run `run`."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("cli"), dirs_exist_ok=True)


def test_train_small_run_writes_and_prints_run_files(trained: Path) -> None:
    out = (trained / "out.txt").read_text()
    assert "before training: mAP" in out
    assert "after training:  mAP" in out
    for name in ("flags.json", "model.keras", "metrics.json", "history.jsonl", "logs/"):
        assert name in out
        assert (trained / "run" / name).exists()
    assert not list((trained / "run").glob("backup*"))
    metrics = json.loads((trained / "run/metrics.json").read_text())
    assert 0 <= metrics["after"]["mAP"] <= 1
    assert metrics["after"]["protocol"]["dataset"] == "market1501"
    assert metrics["after"]["protocol"]["junk"].startswith("same identity in the same camera")
    flags = json.loads((trained / "run/flags.json").read_text())
    assert (flags["height"], flags["epochs"], flags["recipe"]) == (32, 3, "tiny")
    rows = (trained / "run/history.jsonl").read_text().splitlines()
    keys = {"epoch", "seconds", "loss", "logits_identity", "features_triplet_hard"}
    keys |= {"features_triplet_hard_active", "features_triplet_hard_norm"}
    assert [keys <= set(json.loads(row)) for row in rows] == [True] * 3
    assert list((trained / "run/logs").rglob("events*"))


def test_train_finished_run_exits_with_error(trained: Path, pedestrians: Path) -> None:
    before = (trained / "run/model.keras").read_bytes()
    code, _, err = train(pedestrians, trained, act=within)
    assert code == 1
    assert "with a finished run" in err
    assert err.endswith("Give another folder, or set --overwrite.\n")
    assert "Traceback" not in err
    assert (trained / "run/model.keras").read_bytes() == before


def test_evaluate_run_reproduces_training_score(trained: Path) -> None:
    code, out, err = within("evaluate.py", "--run=run", "--out=scores.json", cwd=trained)
    assert code == 0, err
    again = json.loads((trained / "scores.json").read_text())
    after = json.loads((trained / "run/metrics.json").read_text())["after"]
    np.testing.assert_allclose(again["mAP"], after["mAP"], atol=1e-6)
    assert "mAP (rank precision)" in out
    code, _, err = within("evaluate.py", "--run=run", "--out=scores.json", cwd=trained)
    assert code == 1
    assert "a new path, got 'scores.json'" in err


@pytest.mark.slow
def test_export_run_passes_parity_and_keeps_score(trained: Path) -> None:
    reranker = "--rerank_options=k1=7,k2=3,lambda_value=0.5"
    code, out, err = within("export.py", "--run=run", reranker, cwd=trained)
    assert code == 0, err
    ranker = json.loads((trained / "export/run-ranker/1/export.json").read_text())
    assert (ranker["k1"], ranker["k2"], ranker["lambda_value"]) == (7, 3, 0.5)
    assert (trained / "export/run/1/saved_model.pb").exists()
    assert "export/run/1" in out
    assert "parity ok" in out
    assert "scores ok: mAP" in out
    assert (trained / "export/run-ranker/1/export.json").exists()
    contract = json.loads((trained / "export/run/1/export.json").read_text())
    assert contract["about"]["metrics"]["after"]["protocol"]["name"] == "market1501"
    flags = json.loads((trained / "run/flags.json").read_text())
    code, out, err = within(
        "evaluate.py",
        "--saved_model=export/run/1",
        "--dataset=market1501",
        f"--data_dir={flags['data_dir']}",
        "--out=exported.json",
        cwd=trained,
    )
    assert code == 0, err
    exported = json.loads((trained / "exported.json").read_text())
    after = json.loads((trained / "run/metrics.json").read_text())["after"]
    np.testing.assert_allclose(exported["mAP"], after["mAP"], atol=1e-3)


def test_evaluate_feature_files_ranks_and_reranks(trained: Path) -> None:
    code, out, err = within(
        "evaluate.py", "--run=run", "--save_features=features", "--camera_pairs", cwd=trained
    )
    assert code == 0, err
    assert "camera 1 to 2" in out
    assert "95 % intervals over the queries: rank-1" in out
    stored = np.load(trained / "features/gallery.npz")
    (trained / "mapped").mkdir()
    for name in ("embedding", "identity", "camera"):
        np.save(trained / f"mapped/{name}.npy", stored[name])
    features = "--features=features/query.npz,mapped"
    code, text, err = within("evaluate.py", features, "--out=again.json", "--verify", cwd=trained)
    assert code == 0, err
    assert "AUC " in text
    after = json.loads((trained / "run/metrics.json").read_text())["after"]
    again = json.loads((trained / "again.json").read_text())
    np.testing.assert_allclose(again["mAP"], after["mAP"], atol=1e-6)
    assert 0.5 < again["verification"]["auc"] <= 1
    code, out, err = within("evaluate.py", features, "--distance=cosine", cwd=trained)
    assert code == 0, err
    assert re.search(r"distance +cosine", out)
    for rerank, values in (
        ("k_reciprocal", "k1=4,k2=2,lambda_value=0.5"),
        ("average_query_expansion", "k=3"),
    ):
        flags = f"--rerank={rerank}", f"--rerank_options={values}"
        code, out, err = within("evaluate.py", features, *flags, cwd=trained)
        assert code == 0, err
        assert f"{rerank}({values.replace(',', ', ')})" in out
    code, _, err = within("evaluate.py", features, "--save_features=mapped", cwd=trained)
    assert code == 1
    assert "a new path, got 'mapped'" in err


@pytest.mark.slow
def test_cluster_images_writes_folders_csv_and_contact_sheet(
    trained: Path, pedestrians: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"out": "grouped", "csv": "groups.csv", "contact_sheet": "sheet.png"}
    outputs = [f"--{flag}={name}" for flag, name in names.items()]
    images = f"--images={pedestrians}/bounding_box_test"
    options = "--method=agglomerative", "--k1=3", "--k2=2"
    code, out, err = within("cluster.py", "--run=run", images, *outputs, *options, cwd=trained)
    assert code == 0, err
    with (trained / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = sorted((pedestrians / "bounding_box_test").iterdir())
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert f"{len(files)} images" in out
    for i, row in enumerate(rows):
        copy = trained / "grouped" / row["person"] / f"{i:06d}_{files[i].name}"
        assert copy.read_bytes() == files[i].read_bytes()
    assert len(list((trained / "grouped").rglob("*.*"))) == len(files)
    assert (trained / "sheet.png").stat().st_size > 1000
    for flag, name in names.items():
        code, _, err = within("cluster.py", "--run=run", images, f"--{flag}={name}", cwd=trained)
        assert code == 1
        assert f"a new path, got '{name}'" in err
    dataset = "--dataset=market1501", f"--data_dir={pedestrians}", "--part=train"
    code, out, err = within("cluster.py", "--run=run", *dataset, cwd=trained)
    assert code == 0, err
    assert "B-cubed" in out
    assert re.search(r"by --eps=0\.\d+ --k1=\d+ --k2=\d \(silhouette", out)
    code, out, err = within(
        "cluster.py", "--run=run", *dataset, "--k1=40", "--eps=0.99", cwd=trained
    )
    assert code == 0, err
    assert "--eps=0.99 --k1=40 --k2=6" in out
    assert "One group has" in caplog.text


@pytest.fixture(scope="module")
def aligned(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a model with local features."""
    cwd = tmp_path_factory.mktemp("aligned")
    code, _, err = train(pedestrians, cwd, "--stripes=2", "--stripe_normalize")
    assert code == 0, err
    return cwd


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("local", ["trained", "pooled"])
def test_evaluate_and_export_local_features_agree(aligned: Path, local: str) -> None:
    flags = json.loads((aligned / "run/flags.json").read_text())
    dataset = ("--dataset=market1501", f"--data_dir={flags['data_dir']}")
    code, out, err = within(
        "export.py", "--run=run", f"--name={local}", f"--local={local}", cwd=aligned
    )
    assert code == 0, err
    assert "parity ok" in out
    scores = []
    for distance in ("euclidean", "local", "global_local"):
        for model in ("--run=run", f"--saved_model=export/{local}/1"):
            out = f"{local}-{len(scores)}.json"
            code, _, err = within(
                "evaluate.py",
                model,
                *dataset,
                f"--distance={distance}",
                f"--local={local}",
                f"--out={out}",
                cwd=aligned,
            )
            assert code == 0, err
            scores.append(json.loads((aligned / out).read_text()))
    assert [score["protocol"]["distance"] for score in scores[::2]] == [
        "euclidean",
        "local",
        "global_local",
    ]
    for run, exported in zip(scores[::2], scores[1::2], strict=True):
        np.testing.assert_allclose(run["mAP"], exported["mAP"], atol=1e-3)
    assert len({score["mAP"] for score in scores[::2]}) == 3


def test_evaluate_missing_local_features_exits_with_error(trained: Path) -> None:
    for flags, message in (
        (("--local=trained",), "an output named 'local'"),
        (("--stripes=9",), "--stripes must be in [1, 4], got 9. The feature map has 4 rows"),
    ):
        code, _, err = within("evaluate.py", "--run=run", "--distance=local", *flags, cwd=trained)
        assert code == 1
        assert message in err
        assert "Traceback" not in err


@pytest.fixture(scope="module")
def pair(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of two that learned from each other."""
    cwd = tmp_path_factory.mktemp("pair")
    code, out, err = train(
        pedestrians, cwd, "--members=tiny,tiny", "--distillation=logits:0.01,distances:0.001"
    )
    assert code == 0, err
    for name in ("--member=1", "--member=2", "--member=ensemble", "model-2.keras"):
        assert name in out
    return cwd


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("member", ["ensemble", "best", "2"])
def test_evaluate_and_export_member_keep_score(pair: Path, member: str) -> None:
    metrics = json.loads((pair / "run/metrics.json").read_text())
    scores = {name: score["mAP"] for name, score in metrics["members"].items()}
    assert scores["1"] == metrics["after"]["mAP"]
    expected = max(scores["1"], scores["2"]) if member == "best" else scores[member]
    flags = (f"--member={member}", "--run=run")
    code, _, err = within("evaluate.py", *flags, f"--out={member}.json", cwd=pair)
    assert code == 0, err
    again = json.loads((pair / f"{member}.json").read_text())
    np.testing.assert_allclose(again["mAP"], expected, atol=1e-6)
    code, out, err = within("export.py", *flags, f"--name={member}", cwd=pair)
    assert code == 0, err
    assert "parity ok" in out


@pytest.mark.slow
def test_train_teacher_run_distills_student(pair: Path, pedestrians: Path) -> None:
    common = ["train.py", "--dataset=market1501", f"--data_dir={pedestrians}", *TINY]
    distill = [*common, "--teacher=run", "--distillation=logits:1", "--run=student"]
    code, _, err = within(*distill, "--height=64", cwd=pair)
    assert code == 1
    assert "--teacher must be a model of images of 64×16 pixels" in err
    before = (pair / "run/model.keras").read_bytes()
    code, out, err = call(*distill, "--temperature=4", "--epochs=1", cwd=pair)
    assert code == 0, err
    assert "after training:" in out
    assert (pair / "run/model.keras").read_bytes() == before
    (row,) = (pair / "student/history.jsonl").read_text().splitlines()
    assert json.loads(row)["logits_logit_distillation"] > 0
    code, _, err = within("evaluate.py", "--run=student", "--member=2", cwd=pair)
    assert code == 1
    assert "--member must be one of 1, got '2'" in err


def test_train_check_only_writes_no_run_folder(trained: Path, pedestrians: Path) -> None:
    code, out, err = within(
        "train.py",
        "--dataset=market1501",
        f"--data_dir={pedestrians}",
        "--check_only",
        "--run=checked",
        cwd=trained,
    )
    assert code == 0, err
    assert "train" in out
    assert not (trained / "checked").exists()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--data-dir=a-b", "--data_dir=a-b"),
        ("-data-dir", "-data_dir"),
        ("--noscore-before", "--noscore_before"),
        ("--top_k=-1", "--top_k=-1"),
        ("-1", "-1"),
        ("a-b.jpg", "a-b.jpg"),
        ("--", "--"),
        ("--out=a\nb-c", "--out=a\nb-c"),
    ],
)
def test_with_underscores_converts_flag_dashes(given: str, meant: str) -> None:
    assert options._with_underscores(given) == meant


def test_evaluate_flag_with_dashes_is_accepted(tmp_path: Path) -> None:
    _, _, err = call("evaluate.py", "--data-dir=no-where", "--dataset=folder", cwd=tmp_path)
    assert "no-where" in err
    assert "Unknown" not in err


def test_error_message_is_red_only_on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, no_color, red in (
        (Terminal(), "", True),
        (Terminal(), "1", False),
        (io.StringIO(), "", False),
    ):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setattr(sys, "stderr", stream)
        options.print_error("why")
        assert ("\033[31m" in stream.getvalue()) == red
        assert stream.getvalue().endswith(" why\n")


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^  --(?:\[no\])?(\w+):", text, re.MULTILINE))


def test_help_lists_common_flags_and_helpfull_lists_all(tmp_path: Path) -> None:
    _, out, _ = call("train.py", "--help", cwd=tmp_path)
    shown = flags_in(out)
    assert {"recipe", "dataset", "data_dir", "backbone", "epochs", "run"} < shown
    assert len(shown) == 10
    assert "synthetic pedestrians" in out
    assert "--helpfull" in out
    _, out, _ = call("train.py", "--helpfull", cwd=tmp_path)
    assert {field.name for field in setting_fields()} | shown <= flags_in(out)
    _, out, _ = call("evaluate.py", "--help", cwd=tmp_path)
    assert len(flags_in(out)) == 9
    assert "model" in flags_in(out)


@pytest.mark.parametrize("command", [demo, embed, track], ids=["demo", "embed", "track"])
def test_commands_without_data_set_have_no_such_flags(command) -> None:
    names = {field.name for field in command.run.fields}
    assert {"model", "embed_batch_size"} < names
    assert not names & {"dataset", "protocol"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "--dataset=market1502"], r"--dataset must be one of market1501, .*mars"),
        (["evaluate.py", "--run=run", "--dataset=nosuch"], r"should be one of <market1501\|"),
        (["train.py", "--batch_size=32"], "Unknown command line flag 'batch_size'"),
        (["train.py", "--dataset=market1501"], "--data_dir are required"),
        (["train.py", "--dataset=market1501", "--data_dir=nowhere"], "nowhere"),
        (
            ["train.py", "--recipe=botox"],
            "one of aligned, .*, bot, classification, .*, pcb.*, tiny, tracklets, got",
        ),
        (
            ["train.py", "--distillation=logits"],
            "--distillation must be a list of logits, cosine, distances, ranks",
        ),
        # These three draw pedestrians first.
        pytest.param(
            ["train.py", "--init_from=nowhere", "--run=new"],
            r"nowhere/model\.keras` must be a Keras model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["export.py", "--format=litert", "--quantization=int8"],
            "--quantization=int8 needs --dataset",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["export.py", "--member=2"],
            "--member must be 1, got '2'. Only runs have several",
            marks=pytest.mark.slow,
        ),
        (["train.py", "--epochs=0"], "--epochs must be at least 1, got 0"),
        (["train.py", "--warmup=nan"], "--warmup must be a number from .*, got nan"),
        (
            ["train.py", "--metric_weight=nan"],
            "--metric_weight must be a number from .*, got nan",
        ),
        (["train.py", "--seed=-1"], "--seed=-1: -1 is not an integer in the range"),
        (
            ["track.py", "--match_probability=nan"],
            "--match_probability must be a number",
        ),
        (["search.py", "--possible_probability=2", "stats"], "--possible_probability=2"),
        (["evaluate.py", "--draw_seed=-1"], "--draw_seed=-1"),
        (["export.py", "--run=x", "--name=../../x"], "--name must be letters, digits"),
        (["train.py", "--epochs=many"], "many"),
        (["train.py", "--epoch=3"], "epoch"),
        (["train.py", "synthetic"], "Flags start with --, got synthetic"),
        (["train.py", "--precision=float8"], "should be one of <float32"),
        (["track.py"], "--source and one of --out"),
        (["search.py", "stats"], "--gallery is required"),
        (["evaluate.py", "--protocol=marz", "--run=run"], "--protocol must be one of market1501"),
        (["evaluate.py"], "--dataset and --data_dir are required"),
        (["evaluate.py", "--run=x", "--saved_model=y"], "--model, --run, --saved_model can name"),
        (["evaluate.py", "--run=nowhere"], "a run folder, .*, got .*nowhere, which"),
        (
            ["evaluate.py", "--saved_model=nowhere", "--dataset=csv", "--data_dir=x"],
            "must be a table in UTF-8, got 'No such file",
        ),
        (["evaluate.py", "--features=q.npz"], "must be QUERY,GALLERY .* got q.npz"),
        (["evaluate.py", "--features=q.npz,g.npz"], "q.npz` must be an .npz file"),
        (["evaluate.py", "--rerank=magic"], "should be one of <none|k_reciprocal"),
        (["evaluate.py", "--rerank_options=k1"], "NAME=NUMBER, .* got k1"),
        (["cluster.py"], "One of --images, --dataset and --features is required"),
        (
            ["cluster.py", "--images=nowhere"],
            "nowhere` must contain images, got no such file or folder",
        ),
        (["cluster.py", "--features=x.npz", "--images=x"], "One of --images, --dataset and"),
        (
            ["cluster.py", "--images=x", "--contact_sheet=s.txt"],
            r"--contact_sheet must be a path that ends in .*got 's\.txt'",
        ),
        (["export.py", "--pretrained=magic"], "should be one of <person-mobilenetv2"),
        (
            ["export.py", "--run=x", "--rerank_options=k1=0"],
            "`k1` must be an integer of at least 1",
        ),
        (
            ["export.py", "--run=x", "--rerank=ecn", "--rerank_options=k1=3"],
            "must be one of k, t, q",
        ),
        (["export.py", "--run=x", "--rerank=diffusion"], "should be one of <k_reciprocal"),
        (
            ["export.py", "--model=nowhere"],
            "--model must be .* got nowhere, which",
        ),
    ],
)
def test_commands_bad_input_exit_without_traceback(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    code, _, err = within(*arguments, cwd=tmp_path)
    assert code in (1, 2), err
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not list(tmp_path.glob("runs/*/model.keras"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train", "evaluate", "export", "cluster", "search", "track", "embed"]
)
def test_commands_missing_run_print_one_error_line(name: str, tmp_path: Path) -> None:
    data = [] if name in ("track", "embed") else ["--data_dir=nowhere"]
    code, out, err = call(f"{name}.py", "--run=nowhere", *data, cwd=tmp_path)
    assert code == 1
    assert not out
    assert re.fullmatch(r"error: [^\n]+\n", err)


@pytest.mark.slow
def test_train_two_concurrent_processes_use_separate_folders(
    pedestrians: Path, tmp_path: Path
) -> None:
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    started = [Command("train.py", *data, *TINY, "--epochs=1", cwd=tmp_path) for _ in range(2)]
    for command in started:
        _, err = command.communicate()
        assert command.returncode == 0, err
    runs = sorted(path.parent.name for path in tmp_path.glob("runs/*/metrics.json"))
    assert runs == [f"market1501-tiny-{number}" for number in (1, 2)]
    assert not list(tmp_path.glob("runs/*/.*"))


@pytest.mark.slow
def test_print_to_closed_pipe_or_full_device_exits_without_traceback(trained: Path) -> None:
    """`| head`, and a stdout that takes nothing."""
    command = f"{sys.executable} {ROOT / 'evaluate.py'} --run=run"
    for shell, code in (
        (f"{command} | true; exit ${{PIPESTATUS[0]}}", 1),
        (f"{command} > /dev/full", 1),
    ):
        done = subprocess.run(
            ["bash", "-c", shell], cwd=trained, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "a/\x1bb"),
            r"denied of a/\\x1bb\. Check",
        ),
        (OSError(28, "No space left on device"), r"No space left on device\. Check"),
        (MemoryError(), r"Not enough memory\. Use smaller images"),
    ],
)
def test_command_system_error_prints_one_error_line(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(options: EvaluateOptions) -> None:
        raise error

    command, values = Script(act, EvaluateOptions), absl.flags.FlagValues()
    define(command.fields, values)
    with pytest.raises(SystemExit, match="1"):
        command.main(values(["x"]), values)
    assert re.fullmatch(rf"error: .*{message}.*\n", capsys.readouterr().err)


def test_evaluate_function_with_options_returns_score(trained: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(trained)
    result = evaluate(EvaluateOptions(run="run"))
    assert result.mAP == json.loads(Path("run/metrics.json").read_text())["after"]["mAP"]
    with pytest.raises(InputError, match="`protocol` must be one of"):
        EvaluateOptions(run="run", protocol="marz")


def test_train_invalid_values_leave_no_run_folder(pedestrians: Path, tmp_path: Path) -> None:
    common = ["train.py", "--dataset=market1501", f"--data_dir={pedestrians}", *TINY]
    for flag, message in (
        ("--backbone=resnet51", "must be one of efficientnetv2-b0"),
        ("--augment=magic", "augment must be"),
        ("--num_identities_per_batch=4000", "4000"),
        ("--stripes=9", "[1, 4], got 9. The feature map has 4 rows"),
        (
            "--stripe_order=relu",
            "--stripe_order must be one of conv_bn_relu, bn_relu_conv, got 'relu'",
        ),
    ):
        code, _, err = within(*common, flag, "--run=run", cwd=tmp_path)
        assert code == 1, err
        assert message in err
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists(), f"{flag} left a run folder"


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(
    "more",
    [(), ("--members=tiny,tiny", "--distillation=logits:1,distances:0.1", "--update=sequential")],
    ids=["one model", "two members"],
)
def test_train_resume_after_kill_has_identical_weights(
    pedestrians: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """SIGKILL at moments spread over the training; the same command again; the same weights."""
    from keras_reid.training import Run

    flags = [
        "train.py",
        "--dataset=market1501",
        f"--data_dir={pedestrians}",
        *TINY,
        "--epochs=12",
        "--seed=7",
        *more,
    ]
    assert call(*flags, "--run=whole", cwd=tmp_path)[0] == 0
    history = tmp_path / "killed/history.jsonl"
    for epochs in (1, 4, 8):
        process = Command(*flags, "--run=killed", cwd=tmp_path)
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if history.exists() and len(history.read_text().splitlines()) >= epochs:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    code, _, err = call(*flags, "--run=killed", cwd=tmp_path)
    assert code == 0, err
    for number in range(1, 2 + bool(more)):
        whole, killed = (
            Run(tmp_path / name).load_model(str(number)) for name in ("whole", "killed")
        )
        for a, b in zip(whole.get_weights(), killed.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert [json.loads(row)["epoch"] for row in history.read_text().splitlines()] == [*range(1, 13)]


@pytest.mark.slow
@pytest.mark.real
def test_train_real_images_doubles_map(real_data: Path, tmp_path: Path) -> None:
    """Two epochs on small real images from ImageNet weights double the score; export agrees."""
    for part, persons in (("bounding_box_train", 300), ("bounding_box_test", 90), ("query", 90)):
        folder = real_data / "data/market1501-mini" / part
        (tmp_path / "some" / part).mkdir(parents=True)
        known = {file.name[:4] for file in folder.glob("[0-9]*.jpg")} - {"0000"}
        for person in sorted(known)[:persons]:
            for file in folder.glob(f"{person}_*.jpg"):
                (tmp_path / "some" / part / file.name).symlink_to(file)
    code, _, err = call(
        "train.py",
        "--dataset=market1501",
        "--data_dir=some",
        f"--backbone={real_data / 'weights/mobilenetv2_imagenet.keras'}",
        "--height=64",
        "--width=32",
        "--epochs=2",
        "--warmup=0.3",
        "--flip=false",
        "--run=run",
        cwd=tmp_path,
    )
    assert code == 0, err
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["after"]["mAP"] > 2 * metrics["before"]["mAP"]
    assert metrics["after"]["protocol"]["valid_queries"] > 250
    code, out, err = within("export.py", "--run=run", cwd=tmp_path)
    assert code == 0, out + err


@pytest.mark.slow
def test_train_holdout_scores_model_on_validation_persons(
    pedestrians: Path, tmp_path: Path
) -> None:
    rows = [
        f"{file},p{file.name[:4]},camera {file.name[6]}"
        for file in sorted((pedestrians / "bounding_box_train").glob("*.jpg"))
    ]
    (tmp_path / "people.csv").write_text("\n".join(["path,identity,camera", *rows]))
    small = (
        "--recipe=tiny",
        "--height=32",
        "--width=16",
        "--num_identities_per_batch=4",
        "--epochs=1",
    )
    own = ("--dataset=csv", "--data_dir=people.csv", *small)
    out = said("train.py", *own, "--run=unscored", cwd=tmp_path)
    assert "not scored or calibrated. --holdout=0.2 keeps" in out
    held = ("--holdout=0.5", "--noscore_before", "--run=run")
    assert "before training" not in said("train.py", *own, *held, cwd=tmp_path)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert "before" not in metrics
    score = metrics["after"]
    said("evaluate.py", "--run=run", "--out=score.json", cwd=tmp_path)
    again = json.loads((tmp_path / "score.json").read_text())
    assert again["mAP"] == pytest.approx(score["mAP"], abs=1e-6)
    assert again["protocol"]["valid_queries"] == score["protocol"]["valid_queries"] == 6 * 3
    said("export.py", "--run=run", "--noranker", cwd=tmp_path)
    said("train.py", "--base_run=run", "--margin=0.2", "--run=again", cwd=tmp_path)
    flags, again = (json.loads((tmp_path / r / "flags.json").read_text()) for r in ("run", "again"))
    assert {k for k in flags if flags[k] != again[k]} == {"margin"}
    err = said("train.py", *own, "--holdout=0.2", "--combine_all", "--run=x", cwd=tmp_path, code=1)
    assert "Give one of them." in err
    split = [f"{row},{'query' if i % 2 else 'gallery'}" for i, row in enumerate(rows)]
    (tmp_path / "people.csv").write_text("\n".join(["path,identity,camera,split", *split]))
    err = said("train.py", *own, "--holdout=0.2", "--run=x", cwd=tmp_path, code=1)
    assert "needs a data set with only training images, but" in err


def test_train_check_only_faulty_dataset_exits_with_error(
    pedestrians: Path, tmp_path: Path
) -> None:
    flags = ("--dataset=market1501", "--check_only", "--recipe=tiny")
    code, out, _ = within("train.py", *flags, f"--data_dir={pedestrians}", cwd=tmp_path)
    assert code == 0
    assert "ok" in out
    shutil.copytree(pedestrians, tmp_path / "broken")
    next((tmp_path / "broken/query").glob("*.jpg")).write_bytes(b"")
    code, out, err = within("train.py", *flags, "--data_dir=broken", cwd=tmp_path)
    assert code == 1
    assert "1  unreadable files" in out
    assert "has the faults above" in err
