"""Pictures of tracks: frames with boxes, and timelines."""

import colorsys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_reid.errors import invalid
from keras_reid.visualize.lettering import Lettering
from keras_reid.visualize.pictures import NEAR, WHITE, scaled

GOLDEN = 0.618034  # fraction of the circle of hues between consecutive numbers; it spreads evenly


def draw_tracks(
    frame: np.ndarray, boxes: np.ndarray, names: Sequence[Any], trails: Sequence[np.ndarray] = ()
) -> Image.Image:
    """Draw a frame with a box and a name for each person, each person in one color.

    Args:
        frame: uint8 RGB `(h, w, 3)`.
        boxes: `(n, 4)` as x, y, width, height in pixels.
        names: n of them; the same name has the same color in every frame.
        trails: for each box earlier points `(m, 2)` of the person.

    Raises:
        InputError: an invalid frame.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    picture = scaled(frame, np.asarray(frame).shape[0])
    draw = ImageDraw.Draw(picture)
    for trail, name in zip(trails, names, strict=False):
        if len(trail) > 1:
            draw.line([(float(x), float(y)) for x, y in trail], fill=_color(name), width=2)
    size = max(11, picture.height // 45)  # legible letters in a video of that size
    for (x, y, w, h), name in zip(boxes.tolist(), names, strict=True):
        draw.rectangle([x, y, x + w, y + h], outline=_color(name), width=2)
        place = (x + 2, max(0.0, y - size - 3))
        Lettering(name, size).draw(draw, place, _color(name), WHITE)
    return picture


def draw_boxes(image: np.ndarray, boxes: np.ndarray, height: int = 480) -> Image.Image:
    """Draw an image with boxes, which are numbered from 1.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        boxes: `(n, 4)` as x, y, width, height in pixels.
        height: maximum height of the picture in pixels.
    """
    height = min(height, image.shape[0])
    boxes = np.asarray(boxes, float) * height / image.shape[0]
    smaller = np.asarray(scaled(image, height))
    return draw_tracks(smaller, boxes, [str(1 + number) for number in range(len(boxes))])


def draw_timeline(
    intervals: Mapping[Any, Sequence[tuple[float, float]]], width: int = 900, row: int = 18
) -> Image.Image:
    """Draw a timeline with a row of bars for each person, in the order of their first bar.

    Args:
        intervals: begin and end in seconds of each appearance, by name.
        width: width of the picture in pixels.
        row: height of a row in pixels.

    Raises:
        InputError: no persons.

    Example:
        >>> from keras_reid import visualize
        >>> picture = visualize.draw_timeline({"anna": [(0, 4), (9, 12)], "bob": [(3, 7)]})
        >>> picture.size
        (900, 62)
    """
    times = [time for spans in intervals.values() for time in spans]
    if not times:
        raise invalid("intervals", "intervals of at least one person", intervals, "Lower n_init.")
    first, last = min(begin for begin, _ in times), max(end for _, end in times)
    names, margin = sorted(intervals, key=lambda name: min(intervals[name])), 8
    font = ImageFont.load_default(row * 2 // 3)
    texts = [Lettering(name, row * 2 // 3) for name in names]
    left = margin + round(max(text.width for text in texts)) + margin
    scale = (width - left - margin) / max(last - first, 1e-9)
    picture = Image.new("RGB", (width, (len(names) + 1) * row + margin), WHITE)
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        top = number * row
        texts[number].draw(draw, (margin, top + 1), _color(name))
        for begin, end in intervals[name]:
            ends = left + (begin - first) * scale, left + max((end - first) * scale, 2)
            draw.rectangle([ends[0], top + 3, ends[1], top + row - 4], fill=_color(name))
    bottom = len(names) * row
    draw.line([(left, bottom), (width - margin, bottom)], fill=NEAR)
    begun, ended = f"{first:.1f} s", f"{last:.1f} s"
    draw.text((left, bottom + 2), begun, fill=NEAR, font=font)
    draw.text((width - margin - font.getlength(ended), bottom + 2), ended, fill=NEAR, font=font)
    return picture


def _color(name: Any) -> tuple[int, int, int]:
    """Return a strong color by name; colors of consecutive numbers are far apart."""
    number = name if isinstance(name, int) else zlib.crc32(str(name).encode())
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 1.0, (0.8, 0.55)[number % 2])
    return round(255 * red), round(255 * green), round(255 * blue)
