"""Distillation by the commands: a teacher in a network file, and a student that is exported."""

import json
from pathlib import Path

import networks
import pytest
from processes import TINY, call

STUDENT = (*TINY[1:], "--backbone=tiny", "--weights=none", "--views_per_round=16")


@pytest.mark.slow
def test_distill_network_teacher_trains_and_exports_student(
    pedestrians: Path, tmp_path: Path
) -> None:
    networks.write_rows(tmp_path / "teacher.onnx", [1, 3, 48, 24])
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    flags = ["train.py", *data, "--recipe=distill", *STUDENT, "--run=run"]
    code, _, err = call(*flags, cwd=tmp_path)
    assert code == 1
    assert "--teacher must be a trained model for distillation with views" in err
    flags.append("--teacher=teacher.onnx")
    code, _, err = call(*flags, cwd=tmp_path)
    assert code == 1
    assert "Pass them, for example --channel_order=rgb --scale=1 --mean=0" in err
    flags += ["--channel_order=bgr", "--scale=1", "--mean=0"]
    code, out, err = call(*flags, cwd=tmp_path)
    assert code == 0, err
    assert "after training: " in out
    stored = json.loads((tmp_path / "run/flags.json").read_text())
    assert stored["network"]["channel_order"] == "bgr"
    assert stored["teacher"] == "teacher.onnx"
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert 0 < scores["after"]["mAP"] <= 1
    export = ("export.py", "--run=run", "--export_dir=out", "--noranker", "--check_images=2")
    code, out, err = call(*export, cwd=tmp_path)
    assert code == 0, err


def test_distill_conflicting_flags_are_rejected(pedestrians: Path, tmp_path: Path) -> None:
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    for flags, message in (
        (("--cache=memory", "--teacher=x.onnx"), "--views_per_round excludes --cache"),
        (("--teacher_embeddings=x.npz",), "x.npz` must be an .npz file"),
        (("--distillation=logits:1",), "--distillation must be cosine, distances or ranks"),
    ):
        words = ("train.py", *data, "--recipe=distill", *STUDENT, *flags, "--run=run")
        code, _, err = call(*words, cwd=tmp_path)
        assert code == 1
        assert message in err
    code, _, err = call("train.py", *data, *TINY, "--scale=1", "--run=run", cwd=tmp_path)
    assert code == 1
    assert "Flags of a network file (--scale) require --teacher and --views_per_round" in err
