"""Queries and checks of the search page, with a stub in place of an embedder."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import match_within
from PIL import Image

from keras_reid import gallery
from keras_reid.demo.answers import Answers, Query, filter_of
from keras_reid.errors import InputError

NAMES = ("anna", "bert", "carl")


@pytest.fixture
def uri(tmp_path):
    """A gallery of three persons at three cameras, 0.1 apart."""
    pytest.importorskip("faiss", reason="faiss, extra gallery, is not installed")
    images = []
    for name in NAMES:
        images.append(str(tmp_path / f"{name}.png"))
        Image.new("RGB", (16, 32)).save(images[-1])
    uri = f"faiss:{tmp_path / 'people.faiss'}"
    angles = np.arange(3) * 0.1
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with gallery.open(uri) as people:
        people.enrol(rows, NAMES, ["a", "b", "c"], images=images, model_fingerprint="m")
    return uri


def answers(uri, fingerprint="m", distance=0.05):
    calibration = match_within(distance) if distance else None
    return Answers(
        uri, SimpleNamespace(fingerprint=fingerprint, embed=None, calibration=calibration)
    )


QUERY = Query("q.png", np.zeros((32, 16, 3), np.uint8), np.array([1.0, 0.0]), {})


def named(html):
    return re.findall(r"\d+\. (\w+)<br>", html)


def test_answers_of_other_model_raises(uri):
    with pytest.raises(InputError, match="`model` must be 'm', the model of the gallery, got 'n'"):
        answers(uri, "n")


def test_answers_description_gives_wanted_and_unwanted_attributes():
    assert Answers.of_description(["hat", "not bag"]).attributes == {"hat": True, "bag": False}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["anna", "bert", "carl"]),
        ({"k": 2}, ["anna", "bert"]),
        ({"filter": filter_of("b, c", "", "", "")}, ["bert", "carl"]),
        ({"filter": filter_of("", " a", "", "")}, ["bert", "carl"]),
    ],
)
def test_answers_search_filters_and_orders_by_distance(uri, filters, names):
    with answers(uri) as page:
        html, images = page.search(QUERY, **filters)
    assert named(html) == names
    assert [re.search(r"(\w+)\.png", image)[1] for image in images] == names


def test_answers_search_uses_calibration_of_embedder_and_limits(uri):
    with answers(uri) as page:
        assert ">match: anna (" in page.search(QUERY)[0]
        html, _ = page.search(QUERY, limits=gallery.Limits(1.0, 1.0))
        assert ">no match (nearest: anna" in html


def test_answers_search_without_calibration_returns_nearest_name(uri):
    with answers(uri, distance=None) as page:
        assert "nearest: anna (not calibrated)" in page.search(QUERY)[0]


def test_answers_why_without_image_or_feature_map_raises(uri):
    with answers(uri) as page:
        with pytest.raises(InputError, match="A description has no image"):
            page.why(Answers.of_description(["hat"]), "x.png")
        page.embedder.source = SimpleNamespace(is_keras=False)
        with pytest.raises(InputError, match="needs a Keras model with images"):
            page.why(QUERY, "x.png")
