"""Names beyond ASCII in pictures."""

import itertools
import logging
import sys

import numpy as np
import pytest

from keras_reid import visualize
from keras_reid.visualize import lettering

pytest.importorskip("matplotlib", reason="Matplotlib, extra plots, is not installed")
PAIRS = (
    *(("Anna", "Ante"), ("Ümit", "Ömit"), ("Иван", "Олег"), ("Άννα", "Έλλη"), ("دينا", "عمر")),
    *(("李雷", "王芳"), ("김민수", "박지훈"), ("नेहा", "राजू"), ("สมชาย", "มานี"), ("שרה", "דוד")),
    *(
        ("張-1", "王-1"),
        ("Łukasz 李", "Łukasz 王"),
        ("person-1 ☕", "person-1 🎈"),
        ("\U0010ffff", "￿"),
    ),
)


@pytest.fixture(autouse=True)
def forget():
    def clear():
        for cached in (
            lettering._drawn,
            lettering._font_files,
            lettering._letters,
            lettering._font,
        ):
            cached.cache_clear()

    clear()
    yield
    clear()


@pytest.fixture(params=["system", "dejavu", "none"])
def fonts(request, monkeypatch):
    """Fonts of this machine, those of Matplotlib only, or no Matplotlib."""
    if request.param == "dejavu":
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    if request.param == "none":
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    return request.param


def letters(name):
    """White pixels above a box: the colors of persons do not count."""
    frame = np.zeros((160, 240, 3), np.uint8)
    box = np.array([[50, 80, 60, 60.0]])
    picture = np.asarray(visualize.draw_tracks(frame, box, [name], [np.zeros((0, 2))]))[40:79]
    return (picture == 255).all(-1)


@pytest.mark.parametrize("names", PAIRS)
def test_draw_tracks_two_names_differ_with_any_fonts(fonts, names):
    first, second = map(letters, names)
    assert first.any()
    assert (first != second).any()
    np.testing.assert_array_equal(letters(names[0]), first)  # the same in the next frame


@pytest.mark.parametrize("names", PAIRS)
def test_draw_timeline_two_names_differ(fonts, names):
    pixels = np.asarray(visualize.draw_timeline({key: [(0, 1)] for key in names}, 300, 18))
    white = (pixels == 255).all(-1)
    bar = np.flatnonzero(white[9, :280])[-1]  # the last white pixel before the bar
    first, second = white[:18, :bar], white[18:36, :bar]
    assert not first.all()
    assert (first != second).any()


@pytest.mark.parametrize("name", ["Ümit", "Иван", "Nguyễn Thị", "Θάνος", "علي"])
def test_lettering_letters_of_dejavu_are_drawn_without_number(monkeypatch, caplog, name):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    with caplog.at_level(logging.WARNING, "absl"):
        drawn = lettering.Lettering(name, 14)
    assert (drawn.text, drawn.font.getname()[0]) == (name, "DejaVu Sans")
    assert caplog.text == ""


def test_lettering_missing_letters_become_marks_and_number(monkeypatch, caplog):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    monkeypatch.setattr(lettering, "_numbers", itertools.count(1))
    with caplog.at_level(logging.WARNING, "absl"):
        texts = [lettering.Lettering(name, 14).text for name in ("Ö李", "Ö王", "Ö李")]
    assert texts == ["Ö? (1)", "Ö? (2)", "Ö? (1)"]
    assert caplog.text.count("no installed font has all letters of") == 2
    assert "Ö王, which is drawn as Ö? (2)" in caplog.text


@pytest.fixture
def system_font(tmp_path, monkeypatch):
    """A font of the system with two letters, each a box of another height."""
    builder = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    font = builder.FontBuilder(1000, isTTF=True)
    heights = {".notdef": 0, "li": 800, "lei": 300}
    glyphs = {}
    for name, height in heights.items():
        pen = pens.TTGlyphPen(None)
        if height:
            pen.moveTo((100, 0))
            for point in ((900, 0), (900, height), (100, height)):
                pen.lineTo(point)
            pen.closePath()
        glyphs[name] = pen.glyph()
    font.setupGlyphOrder(list(heights))
    font.setupCharacterMap({ord("李"): "li", ord("雷"): "lei"})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(heights, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Two", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(tmp_path / "Two-Regular.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    files = [str(tmp_path / name) for name in ("broken.ttf", "LastResort.otf", "Two-Regular.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: files)


def test_lettering_cjk_font_of_system_is_used(system_font):
    drawn = lettering.Lettering("李雷", 20)
    assert (drawn.text, drawn.font.getname()[0]) == ("李雷", "Two")
    tall, low = (letters(name).sum() for name in ("李", "雷"))
    assert tall != low


def test_lettering_font_with_most_letters_draws_name_of_two_scripts(system_font, monkeypatch):
    monkeypatch.setattr(lettering, "_numbers", itertools.count(1))
    drawn = lettering.Lettering("李雷 Ünal-1", 20)
    assert (drawn.text, drawn.font.getname()[0]) == ("?? Ünal-1 (1)", "DejaVu Sans")


def test_draw_tracks_spellings_of_one_name_draw_equal_images():
    np.testing.assert_array_equal(letters("Zoe\u0308"), letters("Zoë"))
