"""Conversion of runs for ONNX Runtime: parity, fingerprints, use and refusal."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_reid import inference, models, serving
from keras_reid.cli import runtime
from keras_reid.errors import InputError
from keras_reid.training.runs import Run

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime", reason="ONNX Runtime, extra onnx, is not installed")

SIZE = (32, 16)
PIXELS = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), np.uint8)
LOADING = {"runtime": "auto", "member": "1"}


def trained(folder: Path, *seeds: int) -> Run:
    run = Run(folder / "run")
    run.start({"dataset": "synthetic", "data_dir": "drawn", "flip": True})
    members = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        members.append(models.build("tiny", 5, SIZE, weights="none"))
    run.save_models(members)
    run.finish({"mAP": 0.5})
    return run


def test_convert_run_embeds_as_keras_until_the_model_changes(tmp_path):
    run = trained(tmp_path, 0)
    folder = serving.convert(run.directory)
    assert serving.convert(run.directory) == folder
    embedder = inference.load(run.directory)
    of_keras = inference.load(run.directory, "keras")
    assert isinstance(embedder, inference.embedder.Embedder)
    assert not isinstance(embedder, inference.KerasEmbedder)
    assert embedder.fingerprint == of_keras.fingerprint
    assert embedder.flip
    np.testing.assert_allclose(embedder.embed(PIXELS), of_keras.embed(PIXELS), atol=1e-5)
    pooled = embedder.pooled(2).embed(PIXELS)
    np.testing.assert_allclose(pooled["local"], of_keras.pooled(2).embed(PIXELS)["local"])
    keras.utils.set_random_seed(7)
    run.save_models([models.build("tiny", 5, SIZE, weights="none")])
    changed = inference.load(run.directory)
    assert isinstance(changed, inference.KerasEmbedder)
    assert changed.fingerprint != embedder.fingerprint


def test_convert_members_are_separate(tmp_path):
    run = trained(tmp_path, 0, 1)
    for member in ("2", "ensemble"):
        assert inference.Source.of(run.directory).conversion(member) is None
        serving.convert(run.directory, member)
        found, expected = (
            inference.load(run.directory, name, member=member) for name in ("onnx", "keras")
        )
        np.testing.assert_allclose(found.embed(PIXELS), expected.embed(PIXELS), atol=1e-5)
        assert found.fingerprint == expected.fingerprint
    with pytest.raises(InputError, match="has no conversion for onnx"):
        inference.load(run.directory, "onnx")


def test_open_model_converts_run_once(tmp_path, capsys):
    source = inference.Source.of(trained(tmp_path, 0).directory)
    first = runtime.open_model(source, True, LOADING)
    assert "for ONNX Runtime, once" in capsys.readouterr().err
    second = runtime.open_model(source, True, LOADING)
    assert capsys.readouterr().err == ""
    assert isinstance(first, inference.KerasEmbedder)
    assert not isinstance(second, inference.KerasEmbedder)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("convert", [True, False])
def test_open_model_without_onnx_runtime_uses_keras_and_prints_one_line(
    tmp_path, capsys, monkeypatch, convert
):
    monkeypatch.setattr(runtime, "find_spec", lambda package: None)
    monkeypatch.setattr(inference.loading, "find_spec", lambda package: None)
    source = inference.Source.of(trained(tmp_path, 0).directory)
    model = runtime.open_model(source, convert, LOADING)
    assert isinstance(model, inference.KerasEmbedder)
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install '.[onnx]'" in line
