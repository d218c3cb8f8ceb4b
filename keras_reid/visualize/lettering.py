"""Names in pictures, in fonts that have their letters."""

import itertools
import unicodedata
from functools import cache, cached_property
from typing import Any

from absl import logging
from PIL import ImageDraw, ImageFont

from keras_reid.names import normalized

Color = tuple[int, int, int]
_numbers = itertools.count(1)


class Lettering:
    """A name that can be drawn.

    ASCII is drawn in Pillow's font, other names in DejaVu Sans of Matplotlib, else in fonts of the
    system. Letters that no font has become question marks, and a number is added that is different
    for each name.

    Args:
        name: of a person; it is drawn as `str(name)`.
        size: of the letters in pixels.
    """

    def __init__(self, name: Any, size: int) -> None:
        self.runs = [(text, _font(file, size)) for text, file in _runs(normalized(str(name)))]

    @cached_property
    def width(self) -> float:
        """Pixels."""
        return sum(font.getlength(text) for text, font in self.runs)

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        fill: Color,
        background: Color | None = None,
    ) -> None:
        """Draw the name.

        Args:
            draw: the picture.
            place: left upper corner.
            fill: color of the letters.
            background: color of a box behind them; None draws no box.
        """
        x, y = place[0], place[1] + max(font.getmetrics()[0] for _, font in self.runs)
        lefts = itertools.accumulate((font.getlength(text) for text, font in self.runs), initial=x)
        parts = [((left, y), *run) for left, run in zip(lefts, self.runs, strict=False)]
        boxes = [draw.textbbox(at, text, font=font, anchor="ls") for at, text, font in parts]
        if background is not None:
            left, top, right, bottom = zip(*boxes, strict=True)
            draw.rectangle((min(left), min(top), max(right), max(bottom)), fill=background)
        for at, text, font in parts:
            draw.text(at, text, fill=fill, font=font, anchor="ls")


@cache
def _runs(text: str) -> tuple[tuple[str, str], ...]:
    """Return the parts of a text, each with the file of its font; "" is Pillow's font."""
    if text.isascii():
        return ((text, ""),)
    # Joiners and the like have no glyphs.
    letters = [letter for letter in text if unicodedata.category(letter) != "Cf"]
    files = _font_files()
    for file in files:
        if all(ord(letter) in _letters(file) for letter in letters):
            return ((text, file),)
    fonts = [next((f for f in files if ord(x) in _letters(f)), None) for x in letters]
    missing = {x for x, font in zip(letters, fonts, strict=True) if not (font or x.isascii())}
    if missing:
        return _runs(_numbered(text, "".join("?" if x in missing else x for x in letters)))
    pairs = zip(fonts, letters, strict=True)
    groups = itertools.groupby(pairs, key=lambda pair: pair[0])
    return tuple(("".join(letter for _, letter in group), font or "") for font, group in groups)


def _numbered(text: str, readable: str) -> str:
    """Return the readable letters of a text and a new number, and log both."""
    drawn = f"{readable} ({next(_numbers)})"
    logging.warning(
        "no installed font has all letters of %s, which is drawn as %s; install %s",
        *(text, drawn, "one, such as Noto Sans CJK" if _font_files() else "Matplotlib"),
    )
    return drawn


@cache
def _font_files() -> tuple[str, ...]:
    """Return DejaVu Sans, and the fonts of the system; none without Matplotlib."""
    try:
        import matplotlib
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    # The font of last resort has a box for every letter.
    found = [file for file in findSystemFonts() if "lastresort" not in file.lower()]
    found.sort(key=lambda file: ("regular" not in file.lower(), file))
    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", *found


@cache
def _letters(file: str) -> frozenset[int]:
    """Return the code points with a glyph in a font."""
    from matplotlib.ft2font import FT2Font

    try:
        _font(file, 16)  # raises if the font has bitmaps of other sizes
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _font(file: str, size: int) -> Any:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
