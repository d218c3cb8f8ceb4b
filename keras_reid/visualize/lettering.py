"""Names in pictures, in fonts with their letters."""

import itertools
import unicodedata
from functools import cache
from typing import Any

from absl import logging
from PIL import ImageDraw, ImageFont

from keras_reid.names import normalized

Color = tuple[int, int, int]
_numbers = itertools.count(1)


class Lettering:
    """Name in a font that has its letters.

    ASCII is drawn in Pillow's font, other names in DejaVu Sans of Matplotlib, or in the first font
    of the system with all letters. Otherwise missing letters become question marks, and each name
    gets its own number.

    Args:
        name: name of a person; it is drawn as `str(name)`.
        size: size of the letters in pixels.
    """

    def __init__(self, name: Any, size: int) -> None:
        self.text, file = _drawn(normalized(str(name)))
        self.font = _font(file, size)

    @property
    def width(self) -> float:
        """Width of the text in pixels."""
        return self.font.getlength(self.text)

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
            place: (x, y) of the upper left corner of the text.
            fill: color of the letters.
            background: color of a box behind the text; None draws no box.
        """
        if background is not None:
            draw.rectangle(draw.textbbox(place, self.text, font=self.font), fill=background)
        draw.text(place, self.text, fill=fill, font=self.font)


@cache
def _drawn(text: str) -> tuple[str, str]:
    """Return the text to draw, and the file of its font; "" is Pillow's font."""
    if text.isascii():
        return text, ""
    # Joiners and other format characters have no glyphs.
    letters = [letter for letter in text if unicodedata.category(letter) != "Cf"]
    codes = {*map(ord, letters)}
    files = _font_files()
    file = next((file for file in files if codes <= _letters(file)), None)
    if file is not None:
        return text, file
    file = max(files, key=lambda file: len(codes & _letters(file)), default="")
    readable = "".join(x if x.isascii() or ord(x) in _letters(file) else "?" for x in letters)
    drawn = f"{readable} ({next(_numbers)})"
    logging.warning(
        "no installed font has all letters of %s, which is drawn as %s; install %s",
        *(text, drawn, "one, such as Noto Sans CJK" if file else "Matplotlib"),
    )
    return drawn, file


@cache
def _font_files() -> tuple[str, ...]:
    """Return DejaVu Sans, and the fonts of the system; no fonts if Matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    # The font of last resort has a box for every letter.
    fonts = [file for file in findSystemFonts() if "lastresort" not in file.lower()]
    fonts.sort(key=lambda file: ("regular" not in file.lower(), file))
    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", *fonts


@cache
def _letters(file: str) -> frozenset[int]:
    """Return the code points with a glyph in a font; the set is empty for Pillow's font."""
    try:
        from matplotlib.ft2font import FT2Font

        _font(file, 16)  # raises if the font has bitmaps of other sizes
        return frozenset(FT2Font(file).get_charmap())
    except (ImportError, OSError, RuntimeError):
        return frozenset()


@cache
def _font(file: str, size: int) -> Any:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
