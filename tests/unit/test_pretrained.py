"""Pretrained models: checksums, recorded embeddings, model cards and use in commands."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from processes import said

from keras_reid import data, evaluation, inference, models
from keras_reid.errors import InputError
from keras_reid.models import PRETRAINED, shipped
from keras_reid.models.backbones import build

NAMES = list(PRETRAINED)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return models.pretrained(name)


def test_pretrained_card_matches_model(name, model):
    card = PRETRAINED[name]
    assert card.name == name
    assert models.image_size(model) == card.image_size
    assert model.output["embedding"].shape == (None, card.embedding_dim)
    assert "Market-1501" in card.trained_on
    assert "research" in card.license
    assert card.command.startswith("python train.py")
    assert 0 < card.scores["embedding"]["mAP"] < card.scores["embedding, re-ranked"]["mAP"] < 1
    for what, values in card.thresholds.items():
        threshold = evaluation.Threshold(**values)
        assert 0 < threshold.value < 2
        assert threshold.far == float(what.split()[-1])
        assert threshold.measured_far <= threshold.far


def test_pretrained_model_file_is_small(name):
    assert PRETRAINED[name].file.stat().st_size < 6 * 10**6


def test_pretrained_changed_byte_or_missing_file_raises(name, monkeypatch, tmp_path):
    card = PRETRAINED[name]
    shutil.copytree(card.file.parent, tmp_path / name)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert models.pretrained(name) is not None
    changed = bytearray(card.file.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / name / "model.keras").write_bytes(changed)
    with pytest.raises(InputError, match="Install keras_reid again"):
        models.pretrained(name)
    (tmp_path / name / "model.keras").unlink()
    with pytest.raises(InputError, match=r"has none[.] Install"):
        models.pretrained(name)


def test_pretrained_unknown_name_raises_with_known_names():
    with pytest.raises(InputError, match="`name` must be one of person-mobilenetv2"):
        models.pretrained("magic")


def test_pretrained_embedding_matches_recorded_values(name, model):
    """Compare the recorded embedding of an image of three colors and stripes."""
    recorded = shipped.PRETRAINED[name].recorded
    image = np.zeros((1, *PRETRAINED[name].image_size, 3), np.uint8)
    third = image.shape[1] // 3
    image[:, :third], image[:, third : 2 * third], image[:, 2 * third :] = 200, (180, 40, 40), 60
    image[:, ::8] = 255
    found = inference.load(model)([image])[0]
    np.testing.assert_allclose(found[: len(recorded)], recorded, atol=1e-3)


def test_backbones_build_pretrained_name_matches_model_backbone(name, model):
    trained = build(f"pretrained:{name}", image_size=(128, 64))
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 128, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(trained(pixels), inner(pixels), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="`name` must be one of person-mobilenetv2"):
        build("pretrained:magic")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_pretrained_runtimes_agree_with_keras(name, model, runtime):
    package = {"onnx": "onnxruntime"}.get(runtime, runtime)
    pytest.importorskip(package, reason=f"{package}, extra {runtime}, is not installed")
    size = PRETRAINED[name].image_size
    pixels = np.stack([data.synthetic.draw(i, camera=1, instance=0, size=size) for i in range(5)])
    embedder, keras_embedder = inference.load(name, runtime), inference.load(name, "keras")
    np.testing.assert_allclose(embedder.embed(pixels), keras_embedder.embed(pixels), atol=1e-5)
    assert embedder.fingerprint == keras_embedder.fingerprint == inference.fingerprint(model)
    assert embedder.calibration == keras_embedder.calibration
    assert (embedder.image_size, embedder.flip) == (size, False)
    assert embedder.pretrained is PRETRAINED[name]


def test_pretrained_auto_uses_onnx_unless_flip_or_outputs_differ(name, monkeypatch):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, extra onnx, is not installed")
    assert inference.runtime_of(inference.Source.of(name)) == "onnx"
    assert isinstance(inference.load(name, flip=True), inference.KerasEmbedder)
    outputs = ("embedding", "features")
    assert isinstance(inference.load(name, outputs=outputs), inference.KerasEmbedder)
    pixels = np.zeros((1, *PRETRAINED[name].image_size, 3), np.uint8)
    assert [*inference.load(name).select(*outputs).embed(pixels)] == [*outputs]
    with pytest.raises(InputError, match="own flip and the output embedding only"):
        inference.load(name, "onnx", flip=True)
    monkeypatch.setattr("keras_reid.inference.loading.find_spec", lambda package: None)
    assert inference.runtime_of(inference.Source.of(name)) == "keras"


def test_pretrained_weights_are_below_ten_megabytes():
    files = [file for file in shipped.FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 10**7


@pytest.mark.slow
@pytest.mark.real
def test_pretrained_real_images_reaches_expected_map(name, model, real_data):
    """Evaluate on training persons, to check that the file has the trained weights."""
    persons = data.load("market1501", str(real_data / "data/market1501-mini"))
    few = np.unique(persons.query.identity)[:20]
    query, gallery = (p[np.isin(p.identity, few)] for p in (persons.query, persons.gallery))
    embedder = inference.load(model)
    rows = evaluation.compare(embedder.embed(query), embedder.embed(gallery))
    assert evaluation.rank(rows, query, gallery).mAP > 0.95


@pytest.mark.slow
def test_commands_without_model_flag_use_pretrained_model(pedestrians, tmp_path):
    shutil.copytree(pedestrians / "query", tmp_path / "crops")
    out = said("cluster.py", "--images=crops", "--csv=groups.csv", cwd=tmp_path)
    assert "images:" in out
    assert (tmp_path / "groups.csv").exists()
    flags = ("--dataset=market1501", f"--data_dir={pedestrians}")
    assert "mAP" in said("evaluate.py", *flags, cwd=tmp_path)
    people = tmp_path / "people"
    for image in sorted((tmp_path / "crops").glob("*.jpg"))[:6]:
        folder = people / image.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    gallery = ("--gallery=faiss:people.db",)
    said("search.py", *gallery, "enrol", "people", cwd=tmp_path)
    out = said("search.py", *gallery, "query", str(image), cwd=tmp_path)
    assert f"{image}: match: {image.name.split('_')[0]} (" in out
    out = said("search.py", *gallery, "--format=json", "query", str(image), cwd=tmp_path)
    (answer,) = json.loads(out)["queries"]
    assert answer["verdict"] == "match"
    assert answer["probability"] > 0.96
    out = said("search.py", "verify", str(image), str(image), cwd=tmp_path)
    assert out.startswith("0.0000  match (")


@pytest.mark.slow
def test_export_command_pretrained_passes_parity(tmp_path):
    out = said("export.py", "--noranker", "--export_dir=export", cwd=tmp_path)
    assert "FAILED" not in out
    contract = json.loads((tmp_path / f"export/{NAMES[0]}/1/export.json").read_text())
    assert contract["about"]["dataset"] == PRETRAINED[NAMES[0]].trained_on
    assert contract["about"]["checked_on"] == "synthetic"


@pytest.mark.slow
def test_train_command_pretrained_backbone_completes(pedestrians, tmp_path):
    flags = ("--dataset=market1501", f"--data_dir={pedestrians}", "--recipe=bot", "--epochs=1")
    small = (
        "--num_identities_per_batch=4",
        "--num_instances=2",
        "--height=64",
        "--width=32",
        "--run=run",
    )
    out = said("train.py", *flags, *small, f"--backbone=pretrained:{NAMES[0]}", cwd=tmp_path)
    assert "after training" in out


def test_pretrained_read_card_restores_fields(name):
    card = PRETRAINED[name]
    assert shipped.ModelCard.read(card.file.parent) == replace(card)
