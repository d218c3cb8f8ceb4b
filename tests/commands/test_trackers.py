"""TensorBoard, MLflow and Weights & Biases logs of a training run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image
from processes import within
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = (
    *(
        "--recipe=tiny",
        "--height=32",
        "--width=16",
        "--num_identities_per_batch=4",
        "--num_instances=2",
    ),
    *("--epochs=2", "--eval_every=1", "--run=run"),
)


def train(pedestrians: Path, cwd: Path, *more: str, code: int = 0) -> str:
    """Train in a process with the variables of this test, and return its stderr."""
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    command = [sys.executable, str(ROOT / "train.py"), *data, *TINY, *more]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    return ended.stderr


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0})
    found.Reload()
    return found


@pytest.mark.slow
def test_tensorboard_logs_scores_histograms_images_and_embeddings(pedestrians, tmp_path):
    train(pedestrians, tmp_path, "--log_images")
    logs = tmp_path / "run/logs"
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["after"]
    board = events(logs / "scores")
    tags = board.Tags()
    code, _, err = within("evaluate.py", "--run=run", "--verify", "--out=e.json", cwd=tmp_path)
    assert code == 0, err
    pairs = json.loads((tmp_path / "e.json").read_text())["verification"]
    counts = []
    for name in ("one person", "two persons"):
        told = board.Tensors(f"distances/{name}")
        assert [one.step for one in told] == [0, 1, 2], "after each epoch, and at the end"
        low, high, count = tf.make_ndarray(told[-1].tensor_proto).T
        assert 0 <= low[0] < high[-1] <= 2, "embeddings are of length 1"
        counts.append(count.sum())
    assert counts == [pairs["genuine_pairs"], pairs["impostor_pairs"]]
    assert "ranked lists" in tags["tensors"]
    told = board.Tensors("mAP")[-1].tensor_proto
    assert tf.make_ndarray(told) == pytest.approx(metrics["mAP"], rel=1e-5)
    assert "_hparams_/session_start_info" in board.summary_metadata
    embeddings = logs / "embeddings"
    rows = (embeddings / "tensors.tsv").read_text().splitlines()
    labels = (embeddings / "metadata.tsv").read_text().splitlines()
    assert labels[0] == "identity\tcamera"
    assert len(labels) == len(rows) + 1
    with Image.open(embeddings / "sprite.png") as sprite:
        side = int(np.ceil(np.sqrt(len(rows))))
        assert sprite.size == (48 * side, 48 * side)
    config = (embeddings / "projector_config.pbtxt").read_text()
    for name in ("tensors.tsv", "metadata.tsv", "sprite.png"):
        assert name in config


@pytest.mark.slow
def test_tensorboard_without_log_images_writes_no_images(pedestrians, tmp_path):
    train(pedestrians, tmp_path)
    logs = tmp_path / "run/logs"
    assert "ranked lists" not in events(logs / "scores").Tags()["tensors"]
    assert not (logs / "embeddings/sprite.png").exists()


@pytest.mark.slow
def test_mlflow_logs_params_and_metrics(pedestrians, tmp_path, monkeypatch):
    """Log to a store of files, without a network."""
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(pedestrians, tmp_path, "--tracker=mlflow", "--pretrain_epochs=1")
    client = tracking.MlflowClient(f"file:{tmp_path / 'store'}")
    experiment = client.get_experiment_by_name("keras_reid")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    flags = json.loads((tmp_path / "run/flags.json").read_text())
    assert run.data.params["recipe"] == "tiny"
    assert run.data.params.keys() == flags.keys()
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["after"]
    assert run.data.metrics["mAP"] == pytest.approx(metrics["mAP"])
    losses = client.get_metric_history(run.info.run_id, "loss")
    history = (tmp_path / "run/history.jsonl").read_text().splitlines()
    assert [one.value for one in losses] == pytest.approx(
        [json.loads(line)["loss"] for line in history]
    )


@pytest.mark.slow
def test_wandb_offline_run_logs_params_and_metrics(pedestrians, tmp_path, monkeypatch):
    """Offline: a folder that can be sent later."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(pedestrians, tmp_path, "--tracker=wandb")
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    for word in (b"epoch/loss", b"rank-1", b"recipe"):
        assert word in content


@pytest.mark.slow
def test_tracker_start_failure_leaves_no_run_folder(pedestrians, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "magic://x")
    said = train(pedestrians, tmp_path, "--tracker=mlflow", code=1)
    assert "mlflow failed: " in said
    assert not (tmp_path / "run").exists()


def test_experiment_tracker_not_installed_exits_with_error(pedestrians, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_reid.training.trackers.find_spec", lambda name: None)
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    code, _, err = within("train.py", *data, "--tracker=wandb", cwd=tmp_path)
    assert code == 1
    assert "wandb is not installed. Run pip install wandb." in err
