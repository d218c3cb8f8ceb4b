"""Synthetic pedestrians: random looks of a person, drawn in any pose.

Lengths are in body heights. A body stands at the origin and faces +z; x is its left, y is up.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Color = tuple[int, int, int]
T = TypeVar("T")

# Few colors, so that identities differ in combinations and patterns and not in one color.
CLOTHES = {
    "black": (30, 30, 34),
    "gray": (110, 112, 115),
    "white": (222, 222, 218),
    "blue": (50, 74, 122),
    "red": (152, 48, 50),
    "green": (60, 98, 68),
    "yellow": (191, 160, 100),
    "brown": (104, 76, 56),
    "purple": (164, 108, 132),
}
TROUSERS = [CLOTHES[name] for name in ("black", "gray", "blue", "yellow", "brown")]
SKIN = ((238, 202, 176), (220, 176, 144), (190, 140, 104), (150, 104, 74), (106, 72, 52))
HAIR = ((26, 22, 22), (26, 22, 22), (70, 46, 32), (112, 76, 46), (190, 158, 98), (150, 146, 142))
ATTRIBUTES = (
    *("backpack", "bag", "handbag", "hat", "hair", "up", "down"),
    *(part + color for part in ("up", "down") for color in CLOTHES),
)

# Mask of the second color, by x and y in periods of the pattern.
PATTERNS = {
    "rings": lambda x, y: y % 1 < 0.45,
    "pinstripes": lambda x, y: x % 0.6 < 0.2,
    "checks": lambda x, y: (x % 1 < 0.3) | (y % 1 < 0.3),
    "dots": lambda x, y: np.hypot(x % 1 - 0.3, y % 1 - 0.3) < 0.3,
}
HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 7)


class Fabric(NamedTuple):
    """A cloth with a pattern in a second color, repeated every `period` body heights."""

    color: Color
    second: Color = (0, 0, 0)
    pattern: str = "plain"
    period: float = 0.08


class Person:
    """Random looks of an identity, which all its images share."""

    def __init__(self, rng: np.random.Generator) -> None:
        def one(options: Sequence[T]) -> T:
            return options[int(rng.integers(len(options)))]

        def fabric(colors: Sequence[Color], patterns: Sequence[str]) -> Fabric:
            color = one(colors)
            second = one([other for other in clothes if math.dist(other, color) > 90])
            return Fabric(color, second, one(patterns), rng.uniform(0.05, 0.1))

        clothes = list(CLOTHES.values())
        is_coat = rng.random() < 0.2
        self.height = rng.uniform(0.9, 1.06)
        self.girth = rng.uniform(0.82, 1.3)
        self.skin, self.hair = one(SKIN), one(HAIR)
        self.has_long_hair = rng.random() < 0.5
        self.hat = one(clothes) if rng.random() < 0.3 else None
        self.top = fabric(clothes, ("plain", "plain", *PATTERNS))
        self.hem = 0.36 if is_coat else 0.48  # height of the lower end of the top
        self.sleeves = 1.0 if is_coat else one((0.0, 0.4, 1.0))  # covered fraction of the arm
        self.bottom = fabric(TROUSERS, ("plain", "plain", "plain", "checks", "pinstripes"))
        self.has_trousers = rng.random() < 0.7
        self.shoes = one(clothes)
        self.bag = one(("none", "backpack", "bag", "handbag"))
        self.bag_color = one(clothes)
        self.side = one((-1, 1))  # side of the bag: -1 right, 1 left

    def attributes(self) -> dict[str, bool]:
        """Return the clothes and bags, by the names in `ATTRIBUTES`."""
        worn = {
            **{name: self.bag == name for name in ("backpack", "bag", "handbag")},
            "hat": self.hat is not None,
            "hair": self.has_long_hair,
            "up": self.sleeves < 1,
            "down": self.has_trousers,
        }
        for part, fabric in (("up", self.top), ("down", self.bottom)):
            worn |= {part + name: fabric.color == color for name, color in CLOTHES.items()}
        return worn


def dim(color: Color, light: float) -> Color:
    """Return a color multiplied by the light, 1 for no change."""
    red, green, blue = (min(255, round(c * light)) for c in color)
    return red, green, blue


class Figure:
    """A person in a pose before an orthographic camera.

    Args:
        who: the person.
        heading: radians; 0 faces the camera.
        stride: angle of the legs in radians.
        tilt: downward angle of the camera in radians.
    """

    def __init__(self, who: Person, heading: float, stride: float, tilt: float) -> None:
        self.who, self.stride = who, stride
        self.cos, self.sin = math.cos(heading), math.sin(heading)
        ahead = np.array((-self.sin, 0.0, self.cos))
        up = np.array((0.0, math.cos(tilt), 0.0)) - ahead * math.sin(tilt)
        # Rows: x and y as the camera sees them, and the depth, which grows towards the camera.
        self.view = np.stack([(self.cos, 0.0, self.sin), up, ahead])
        self.shapes: list[tuple[float, np.ndarray, Fabric]] = []  # depth, outline (n, 2), fill
        self.joints: dict[str, np.ndarray] = {}  # (2,) by their names in COCO
        for side in (-1, 1):
            self._leg(side)
            self._arm(side)
        self._torso()
        self._head()

    def paint(self, image: Image.Image, feet: tuple[float, float], unit: float) -> None:
        """Draw the person with the feet at a pixel and a body height of `unit` pixels."""
        canvas = ImageDraw.Draw(image)
        y, x = np.ogrid[: image.height, : image.width]
        for _, outline, fabric in sorted(self.shapes, key=lambda shape: shape[0]):
            pixels = (feet + outline * (unit, -unit)).ravel().tolist()
            canvas.polygon(pixels, fill=fabric.color)
            if fabric.pattern in PATTERNS:
                inside = Image.new("1", image.size)
                ImageDraw.Draw(inside).polygon(pixels, fill=1)
                period = fabric.period * unit
                marks = PATTERNS[fabric.pattern]((x - feet[0]) / period, (y - feet[1]) / period)
                marks = np.broadcast_to(marks, image.size[::-1])
                mask = ImageChops.logical_and(inside, Image.fromarray(marks))
                image.paste(fabric.second, mask=mask)

    def _depth(self, point: np.ndarray) -> float:
        return float(self.view[2] @ point)

    def _width(self, lateral: float, sagittal: float) -> float:
        """Return the visible half width of an upright elliptic cylinder."""
        return math.hypot(lateral * self.cos, sagittal * self.sin)

    def _add(self, depth: float, outline: np.ndarray, fill: Color | Fabric) -> None:
        cloth = fill if isinstance(fill, Fabric) else Fabric(fill)
        # The far side of a body gets less light; legs are behind it by 0.4.
        light = 1.0 + 1.2 * min(0.0, max(-0.15, depth if depth > -0.2 else depth + 0.4))
        cloth = cloth._replace(color=dim(cloth.color, light), second=dim(cloth.second, light))
        self.shapes.append((depth, outline * self.who.height, cloth))

    def _limb(
        self, depth: float, p: np.ndarray, q: np.ndarray, r: float, s: float, fill: Color | Fabric
    ) -> None:
        """Add a tapered tube with round ends from `p` (radius r) to `q` (radius s)."""
        start, end = self.view[:2] @ p, self.view[:2] @ q
        angle = math.atan2(*(end - start)[::-1]) + HALF_TURN
        arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        self._add(depth, np.concatenate([end + s * arc, start - r * arc]), fill)

    def _slab(
        self, depth: float, rows: Sequence[tuple[float, float]], fill: Color | Fabric, x: float = 0
    ) -> None:
        """Add a solid around the upright axis at `x`, as rows of (height, half width)."""
        right = [(x + width, y) for y, width in rows]
        left = [(x - width, y) for y, width in reversed(rows)]
        self._add(depth, np.array(right + left) * (1, self.view[1, 1]), fill)

    def _case(self, center: np.ndarray, size: tuple[float, float, float], depth: float) -> None:
        """Add a bag; `size` is half its width, height and thickness."""
        x, y, _ = self.view @ center
        wide, high = self._width(size[0], size[2]), size[1]
        rows = ((y + high, 0.8 * wide), (y - 0.8 * high, wide), (y - high, 0.8 * wide))
        self._slab(depth, rows, self.who.bag_color, x)

    def _mark(self, side: int, **joints: np.ndarray) -> None:
        """Record the joints of a side: -1 right, 1 left."""
        for name, point in joints.items():
            pixel = self.view[:2] @ point * self.who.height
            self.joints[f"{'left' if side > 0 else 'right'}_{name}"] = pixel

    def _leg(self, side: int) -> None:
        who, thick = self.who, 0.048 * self.who.girth**0.7
        swing = self.stride * side
        hip = np.array((0.046 * who.girth * side, 0.51, 0.0))
        knee = hang(hip, 0.235, swing)
        ankle = hang(knee, 0.235, swing - max(0.0, -swing) - 0.05)
        self._mark(side, hip=hip, knee=knee, ankle=ankle)
        depth = -0.4 + 0.5 * self._depth(knee)
        shin = who.bottom if who.has_trousers else who.skin
        self._limb(depth, knee, ankle, thick * 0.72, thick * 0.5, shin)
        self._limb(depth, hip, knee, thick, thick * 0.76, who.bottom)
        self._limb(depth, ankle, hang(ankle, 0.07, 1.4), 0.026, 0.018, who.shoes)

    def _arm(self, side: int) -> None:
        who, thick = self.who, 0.034 * self.who.girth**0.7
        swing = -0.8 * self.stride * side
        shoulder = np.array((0.125 * who.girth**0.8 * side, 0.795, 0.0))
        elbow = hang(shoulder, 0.155, swing)
        wrist = hang(elbow, 0.15, swing + 0.3)
        self._mark(side, shoulder=shoulder, elbow=elbow, wrist=wrist)
        depth, sleeve = self._depth(elbow), who.top if who.sleeves == 1 else who.skin
        self._limb(depth, elbow, hang(wrist, 0.03, swing), thick * 0.7, thick * 0.6, who.skin)
        self._limb(depth, elbow, wrist, thick * 0.8, thick * 0.65, sleeve)
        self._limb(depth, shoulder, elbow, thick, thick * 0.8, sleeve)
        if 0 < who.sleeves < 1:
            cuff = shoulder + 2 * who.sleeves * (elbow - shoulder)
            self._limb(depth, shoulder, cuff, thick * 1.1, thick, who.top)
        if who.bag == "handbag" and side == who.side:
            self._case(wrist - (0.0, 0.1, 0.0), (0.075, 0.06, 0.04), depth)

    def _torso(self) -> None:
        who, g = self.who, self.who.girth
        chest, waist = self._width(0.125 * g**0.8, 0.075 * g), self._width(0.098 * g, 0.072 * g)
        hips = self._width(0.105 * g, 0.08 * g)
        self._slab(-0.18, ((0.6, waist), (0.46, hips)), who.bottom)
        shoulders = ((0.855, 0.035), (0.835, chest * 0.85), (0.8, chest))
        self._slab(0.0, (*shoulders, (0.64, waist), (who.hem, hips)), who.top)
        if who.bag == "backpack":
            behind = np.array((0.0, 0.69, -0.1))
            self._case(behind, (0.09, 0.12, 0.055), 1.3 * self._depth(behind))
            for x in (-0.07, 0.07) if self.cos > 0.2 else ():
                top, end = np.array((x, 0.84, 0.05)), np.array((x, 0.66, 0.07))
                self._limb(0.02, top, end, 0.013, 0.013, who.bag_color)
        elif who.bag == "bag":
            hip = np.array((0.14 * g * who.side, 0.52, -0.02))
            self._case(hip, (0.05, 0.065, 0.08), self._depth(hip))
            over = np.array((-0.08 * who.side, 0.84, 0.0))
            self._limb(0.02, over, hip * (0.8, 1.1, 0.0), 0.009, 0.009, who.bag_color)

    def _head(self) -> None:
        who, is_front = self.who, self.cos > -0.2
        self.joints["nose"] = self.view[:2] @ (0, 0.92, 0.06) * who.height
        for side in (-1, 1):
            eye, ear = np.array((0.02 * side, 0.935, 0.05)), np.array((0.045 * side, 0.925, 0.0))
            self._mark(side, eye=eye, ear=ear)

        tubes = [  # depth, ends as (height, z), radius and fill: neck, face, hair
            (0.05, (0.84, 0.0), (0.9, 0.01), 0.03, dim(who.skin, 0.85)),
            (0.4, (0.91, 0.014), (0.938, 0.014), 0.047, who.skin),
            (0.39 if is_front else 0.41, (0.93, -0.014), (0.955, -0.014), 0.05, who.hair),
            (0.42, (0.97, -0.01), (0.97, 0.0), 0.042, who.hair),
        ]
        if who.has_long_hair:
            tubes += [(-0.1 if is_front else 0.42, (0.93, -0.025), (0.78, -0.06), 0.055, who.hair)]
        if who.hat:
            tubes += [
                (0.5, (0.975, -0.01), (0.975, 0.02), 0.05, who.hat),
                (0.5 * self.cos, (0.956, 0.04), (0.952, 0.1), 0.02, who.hat),
            ]
        for depth, low, high, radius, fill in tubes:
            self._limb(depth, np.array((0, *low)), np.array((0, *high)), radius, radius, fill)


def hang(start: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Return the end (3,) of a bone that hangs from `start`, swung forward by `angle`."""
    return start + length * np.array((0.0, -math.cos(angle), math.sin(angle)))
