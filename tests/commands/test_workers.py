"""Multi-worker training on loopback: same steps as one worker, and resume after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from processes import call, within

from keras_reid import training
from keras_reid.errors import InputError
from keras_reid.training.runs import Run, read_history

ROOT = Path(__file__).parent.parent.parent
# Of one step an epoch, for the hardest comparison changes by a rounding.
SMALL = ("--recipe=tiny", "--height=32", "--width=16", "--noscore_before", "--augment=none")
MUTUAL = ("--members=tiny,tiny", "--distillation=logits:1,distances:1", "--seed=1")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Workers:
    """Several connected processes of `train.py`."""

    def __init__(self, folder: Path, *flags: str, count: int = 2) -> None:
        addresses = [f"localhost:{port}" for port in free_ports(count)]
        command = [sys.executable, str(ROOT / "train.py"), *flags, "--strategy=multiworker"]
        self.processes = [
            subprocess.Popen(
                command,
                cwd=folder,
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps(
                        {
                            "cluster": {"worker": addresses},
                            "task": {"type": "worker", "index": number},
                        }
                    ),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]

    def ended(self) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each."""
        said = [process.communicate(timeout=600) for process in self.processes]
        return [(p.returncode, *two) for p, two in zip(self.processes, said, strict=True)]


def weights(run: Path) -> np.ndarray:
    models = [
        Run(run).load_model(name)
        for name in ("1", "2")
        if Run(run).member_file(int(name)).is_file()
    ]
    return np.concatenate([v.numpy().ravel() for model in models for v in model.weights])


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), pytest.param(MUTUAL, marks=pytest.mark.nightly)])
def test_multiworker_two_workers_match_one(pedestrians, tmp_path, more):
    flags = (
        *("--dataset=market1501", f"--data_dir={pedestrians}", *SMALL, *more),
        *("--num_identities_per_batch=8", "--num_instances=4", "--epochs=1"),
    )
    code, _, err = within("train.py", *flags, "--run=one", cwd=tmp_path)
    assert code == 0, err
    for code, _, err in Workers(tmp_path, *flags, "--run=two").ended():
        assert code == 0, err
    one, two = (read_history(tmp_path / name / "history.jsonl")[0] for name in ("one", "two"))
    for name in one.keys() - {"seconds"}:
        assert two[name] == pytest.approx(one[name], rel=2e-3), name
    assert "after" in Run(tmp_path / "two").metrics
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert np.abs(first - second).max() < 0.05 * np.abs(first).max()
    model = Run(tmp_path / "two").load_model()
    names = [layer.name for layer in model.layers if getattr(layer, "synchronized", False)]
    assert not names, "a model in one process must not wait for others"


@pytest.mark.nightly
def test_multiworker_resumes_after_killed_worker(pedestrians, tmp_path):
    flags = (
        *("--dataset=market1501", f"--data_dir={pedestrians}", *SMALL),
        *("--num_identities_per_batch=8", "--num_instances=4", "--epochs=6", "--run=run"),
    )
    workers = Workers(tmp_path, *flags)
    while not list(tmp_path.glob("run/backup-1.weights.h5")):
        assert workers.processes[0].poll() is None
        time.sleep(0.1)
    workers.processes[1].send_signal(signal.SIGKILL)
    code, _, err = workers.ended()[0]
    if code:  # it may have been done by then
        assert code == 1
        assert "workers is lost" in err
        assert "Traceback" not in err
    before = len(read_history(tmp_path / "run/history.jsonl"))
    assert before >= 1
    for code, _, err in Workers(tmp_path, *flags).ended():
        assert code == 0, err
    history = read_history(tmp_path / "run/history.jsonl")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert Run(tmp_path / "run").finished


@pytest.mark.nightly
def test_data_service_training_matches_local_training(pedestrians, tmp_path):
    flags = (
        *("--dataset=market1501", f"--data_dir={pedestrians}", "--recipe=tiny", "--epochs=2"),
        *(
            "--height=32",
            "--width=16",
            "--noscore_before",
            "--num_identities_per_batch=8",
            "--num_instances=4",
        ),
    )
    program = [sys.executable, str(ROOT / "examples/data_service.py")]
    with ExitStack() as stack:

        def start(*more: str) -> str:
            process = stack.enter_context(
                subprocess.Popen([*program, *more], stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            return process.stdout.readline().split()[-1]

        address = start()
        start(f"--dispatcher={address.removeprefix('grpc://')}")
        code, _, err = call(
            "train.py", *flags, f"--data_service={address}", "--run=fed", cwd=tmp_path
        )
        assert code == 0, err
    code, _, err = call("train.py", *flags, "--run=alone", cwd=tmp_path)
    assert code == 0, err
    fed, alone = (read_history(tmp_path / name / "history.jsonl") for name in ("fed", "alone"))
    for one, other in zip(fed, alone, strict=True):  # threads add up in any order
        assert {**one, "seconds": 0} == pytest.approx({**other, "seconds": 0}, rel=1e-5)


def test_multiworker_and_data_service_bad_input_raises(pedestrians, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="TF_CONFIG must be set for each worker"):
        training.Replicas("multiworker")
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(InputError, match=r"got '\{\}'"):
        training.Replicas("multiworker")
    with pytest.raises(InputError, match="strategy"):
        training.Replicas("magic")
    flags = ("--dataset=market1501", f"--data_dir={pedestrians}", *SMALL, "--run=x")
    for more, message in (
        (("--strategy=multiworker", "--run="), "--run is required"),
        (
            ("--strategy=multiworker", "--data_service=grpc://a:1"),
            "--data_service excludes --strategy=multiworker",
        ),
        (("--data_service=nowhere",), "grpc://HOST:PORT"),
        (
            ("--data_service=grpc://localhost:1", "--num_identities_per_batch=8"),
            "--data_service must be a running data service",
        ),
    ):
        code, _, err = within("train.py", *flags, *more, cwd=tmp_path)
        assert code == 1
        assert message in err
