"""Outlines of simple solids, cloth patterns, and how Pillow fills one with the other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

TURN = np.linspace(0, 2 * np.pi, 17)[:-1]
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
HALF = np.linspace(-np.pi / 2, np.pi / 2, 7)


@dataclass(frozen=True)
class Fabric:
    """A cloth: `pattern` in colour `second` on `colour`, repeated every `period` body heights."""

    colour: Colour
    second: Colour
    pattern: str = "plain"
    period: float = 0.08


class Shape(NamedTuple):
    """A filled outline `(n, 2)`, y up; shapes of greater depth are nearer and painted later."""

    depth: float
    outline: np.ndarray
    fill: Colour | Fabric


def ellipse(centre: np.ndarray, width: float, height: float) -> np.ndarray:
    """Outline `(16, 2)` of an ellipse with the given half axes."""
    return centre + CIRCLE * (width, height)


def cap(centre: np.ndarray, width: float, height: float) -> np.ndarray:
    """Outline of the upper half of an ellipse."""
    return centre + np.stack([width * np.sin(HALF), height * np.cos(HALF)], axis=1)


def capsule(p: np.ndarray, q: np.ndarray, r: float, s: float) -> np.ndarray:
    """Outline of a tapered bar with round ends, of radius r at `p` and s at `q`."""
    ahead = math.atan2(q[1] - p[1], q[0] - p[0]) + HALF
    end = np.stack([np.cos(ahead), np.sin(ahead)], axis=1)
    return np.concatenate([q + s * end, p - r * end])


def darker(fill: Colour | Fabric, light: float) -> Colour | Fabric:
    """The same fill under `light` (1 = unchanged)."""
    if isinstance(fill, Fabric):
        return replace(fill, colour=dim(fill.colour, light), second=dim(fill.second, light))
    return dim(fill, light)


def dim(colour: Colour, light: float) -> Colour:
    """A colour under that much light."""
    red, green, blue = (min(255, round(c * light)) for c in colour)
    return red, green, blue


def paint(
    image: Image.Image, shapes: Iterable[Shape], origin: tuple[float, float], unit: float
) -> None:
    """Fills shapes from far to near; (0, 0) falls on pixel `origin`, a body height is `unit`."""
    canvas = ImageDraw.Draw(image)
    for shape in sorted(shapes, key=lambda each: each.depth):
        pixels = np.asarray(origin) + shape.outline * (unit, -unit)
        outline = [(x, y) for x, y in pixels.tolist()]
        if isinstance(shape.fill, Fabric):
            clothe(image, canvas, outline, shape.fill, origin, unit)
        else:
            canvas.polygon(outline, fill=shape.fill)


def clothe(
    image: Image.Image,
    canvas: ImageDraw.ImageDraw,
    outline: list[tuple[float, float]],
    fabric: Fabric,
    origin: tuple[float, float],
    unit: float,
) -> None:
    """Fills one outline with the colour of a fabric, then with its pattern through a mask."""
    canvas.polygon(outline, fill=fabric.colour)
    if fabric.pattern == "plain":
        return
    xs, ys = zip(*outline, strict=True)
    left, top = math.floor(min(xs)), math.floor(min(ys))
    size = (math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1)
    inside, marks = Image.new("1", size), Image.new("1", size)
    ImageDraw.Draw(inside).polygon([(x - left, y - top) for x, y in outline], fill=1)
    PATTERNS[fabric.pattern](
        ImageDraw.Draw(marks), size, origin[0] - left, origin[1] - top, fabric.period * unit
    )
    mask = Image.new("1", size)
    mask.paste(inside, mask=marks)
    image.paste(fabric.second, (left, top), mask)


def marks_from(start: float, stop: float, period: float) -> Iterable[float]:
    """The multiples of `period` past `start`, so that a pattern moves with its wearer."""
    first = start % period - period
    return np.arange(first, stop, period).tolist()


def rings(canvas: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, p: float) -> None:
    """Stripes across, of the period p, through (x, y)."""
    for top in marks_from(y, size[1], p):
        canvas.rectangle((0, top, size[0], top + 0.45 * p), fill=1)


def pinstripes(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, p: float
) -> None:
    """Thin stripes down, of the period 0.6 p."""
    for left in marks_from(x, size[0], 0.6 * p):
        canvas.rectangle((left, 0, left + 0.2 * p, size[1]), fill=1)


def checks(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, p: float
) -> None:
    """Stripes across and down."""
    for left in marks_from(x, size[0], p):
        canvas.rectangle((left, 0, left + 0.3 * p, size[1]), fill=1)
    for top in marks_from(y, size[1], p):
        canvas.rectangle((0, top, size[0], top + 0.3 * p), fill=1)


def dots(canvas: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, p: float) -> None:
    """Dots in rows."""
    for left in marks_from(x, size[0], p):
        for top in marks_from(y, size[1], p):
            canvas.ellipse((left, top, left + 0.55 * p, top + 0.55 * p), fill=1)


def yoke(canvas: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, p: float) -> None:
    """The shoulders in the other colour."""
    canvas.rectangle((0, 0, size[0], 0.42 * size[1]), fill=1)


PATTERNS = {
    "rings": rings,
    "pinstripes": pinstripes,
    "checks": checks,
    "dots": dots,
    "yoke": yoke,
}
