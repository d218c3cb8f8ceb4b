"""Models that come with the package."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from processes import said

from keras_reid import data, evaluation, models
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


def test_the_card_says_what_the_model_is(name, model):
    card = PRETRAINED[name]
    assert card.name == name
    assert models.image_size(model) == card.image_size
    assert model.output["embedding"].shape == (None, card.embedding_width)
    assert "Market-1501" in card.trained_on
    assert "research" in card.licence
    assert card.command.startswith("python train.py")
    assert 0 < card.scores["embedding"]["mAP"] < card.scores["embedding, re-ranked"]["mAP"] < 1
    for what, values in card.thresholds.items():
        threshold = evaluation.Threshold(**values)
        assert 0 < threshold.value < 2
        assert threshold.far == float(what.split()[-1])
        assert threshold.measured_far <= threshold.far


def test_all_models_are_small(name):
    assert PRETRAINED[name].file.stat().st_size < 6 * 10**6


def test_a_changed_byte_is_refused(name, monkeypatch, tmp_path):
    card = PRETRAINED[name]
    shutil.copytree(card.file.parent, tmp_path / name)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert models.pretrained(name) is not None
    changed = bytearray(card.file.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / name / "model.keras").write_bytes(changed)
    with pytest.raises(InputError, match="install keras_reid again"):
        models.pretrained(name)
    (tmp_path / name / "model.keras").unlink()
    with pytest.raises(InputError, match=r"has none; install"):
        models.pretrained(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="name is one of person-mobilenetv2"):
        models.pretrained("magic")


def test_embeddings_are_those_that_were_recorded(name, model):
    """Of an image that anybody can make: a column of three colours, and stripes across."""
    recorded = shipped.PRETRAINED[name].recorded
    image = np.zeros((1, *PRETRAINED[name].image_size, 3), np.uint8)
    third = image.shape[1] // 3
    image[:, :third], image[:, third : 2 * third], image[:, 2 * third :] = 200, (180, 40, 40), 60
    image[:, ::8] = 255
    found = models.Embedder(model)([image])[0]
    np.testing.assert_allclose(found[: len(recorded)], recorded, atol=1e-3)


def test_a_training_starts_from_its_backbone(name, model):
    trained = build(f"pretrained:{name}", image_size=(128, 64))
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 128, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(trained(pixels), inner(pixels), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="name is one of person-mobilenetv2"):
        build("pretrained:magic")


@pytest.mark.slow
@pytest.mark.real
def test_real_persons_are_told_apart(name, model, real_data):
    """Those that it was trained on, which says that the file holds what was trained."""
    persons = data.load("market1501", str(real_data / "data/market1501-mini"))
    few = np.unique(persons.query.identity)[:20]
    query, gallery = (p[np.isin(p.identity, few)] for p in (persons.query, persons.gallery))
    embedder = models.Embedder(model)
    rows = evaluation.compare(embedder.embed(query), embedder.embed(gallery))
    assert evaluation.rank(rows, query, gallery).mAP > 0.95


@pytest.mark.slow
def test_commands_take_it_where_no_other_is_named(pedestrians, tmp_path):
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
    assert "the gallery has no threshold of its own" in out
    assert "FAR 0.01" in out
    assert image.name.split("_")[0] in out
    out = said("search.py", *gallery, "--output=json", "query", str(image), cwd=tmp_path)
    limit = PRETRAINED[NAMES[0]].thresholds["1:N at FAR 0.01"]["value"]
    assert json.loads(out)["threshold"] == limit


@pytest.mark.slow
def test_an_export_agrees_with_it(tmp_path):
    out = said("export.py", "--noranker", "--export_dir=export", cwd=tmp_path)
    assert "FAILED" not in out
    assert (tmp_path / f"export/{NAMES[0]}/1/export.json").exists()


@pytest.mark.slow
def test_a_training_of_the_commands_starts_from_it(pedestrians, tmp_path):
    flags = ("--dataset=market1501", f"--data_dir={pedestrians}", "--recipe=bot", "--epochs=1")
    small = ("--identities=4", "--instances=2", "--height=64", "--width=32", "--run=run")
    out = said("train.py", *flags, *small, f"--backbone=pretrained:{NAMES[0]}", cwd=tmp_path)
    assert "after training" in out


def test_a_card_is_read_back(name):
    card = PRETRAINED[name]
    assert shipped.Pretrained.read(card.file.parent) == replace(card)
