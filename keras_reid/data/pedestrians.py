"""A synthetic pedestrian: what stays with the identity, and how it looks from a heading in a pose.

Lengths are in body heights. A body stands at the origin and faces +z; x is its left, y is up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from keras_reid.data.drawing import Colour, Fabric, Shape, cap, capsule, darker, ellipse

Point = tuple[float, float, float]
Rows = Sequence[tuple[float, float]]
T = TypeVar("T")

BLACK, CHARCOAL, GREY, WHITE = (30, 30, 34), (66, 68, 74), (126, 128, 130), (222, 222, 218)
NAVY, BLUE, RED, GREEN = (36, 46, 86), (70, 106, 158), (152, 48, 50), (60, 98, 68)
BEIGE, BROWN, MAUVE, OCHRE = (190, 168, 132), (104, 76, 56), (164, 108, 132), (192, 150, 66)

# Few colours, so that identities differ in combinations and patterns and not in one colour.
CLOTHES = (BLACK, CHARCOAL, GREY, WHITE, NAVY, BLUE, RED, GREEN, BEIGE, BROWN, MAUVE, OCHRE)
TROUSERS = (BLACK, BLACK, CHARCOAL, GREY, NAVY, NAVY, BLUE, BEIGE, BROWN)
SHOES = (BLACK, BLACK, WHITE, GREY, BROWN, RED)
SKIN = ((238, 202, 176), (220, 176, 144), (190, 140, 104), (150, 104, 74), (106, 72, 52))
HAIR = ((26, 22, 22), (26, 22, 22), (70, 46, 32), (112, 76, 46), (190, 158, 98), (150, 146, 142))
WEAVES = ("plain", "rings", "rings", "pinstripes", "checks", "dots", "yoke")


@dataclass(frozen=True)
class Person:
    """Everything that all images of one identity share."""

    height: float
    girth: float
    skin: Colour
    hair: Colour
    hairstyle: str  # bald, short, long, bun
    hat: str  # none, cap, beanie, brim
    hat_colour: Colour
    top: Fabric
    sleeves: float  # covered fraction of the arm
    hem: float  # height at which the top ends
    logo: str  # none, disc, block, bar
    open_front: bool
    bottom: Fabric
    legwear: str  # trousers, shorts, skirt
    shoes: Colour
    boots: bool
    bag: str  # none, backpack, shoulder, hand
    bag_colour: Colour
    side: int  # on which a bag hangs: -1 right, 1 left


class Pose(NamedTuple):
    """What changes from image to image; angles in radians, heading 0 faces the camera."""

    heading: float
    stride: float
    tilt: float = 0.0


def person(rng: np.random.Generator) -> Person:
    """Draws an identity at random."""

    def one(options: Sequence[T]) -> T:
        return options[int(rng.integers(len(options)))]

    def fabric(colours: Sequence[Colour], patterns: Sequence[str]) -> Fabric:
        colour = one(colours)
        second = one([other for other in CLOTHES if math.dist(other, colour) > 90])
        return Fabric(colour, second, one(patterns), float(rng.uniform(0.05, 0.1)))

    coat = rng.random() < 0.2
    logo = one(("none", "none", "disc", "block", "bar"))
    return Person(
        height=float(rng.uniform(0.9, 1.06)),
        girth=float(rng.uniform(0.82, 1.3)),
        skin=one(SKIN),
        hair=one(HAIR),
        hairstyle=one(("short", "short", "long", "long", "bun", "bald")),
        hat=one(("none",) * 5 + ("cap", "beanie", "brim")),
        hat_colour=one(CLOTHES),
        top=fabric(CLOTHES, WEAVES if logo == "none" else ("plain",)),
        sleeves=1.0 if coat else one((0.0, 0.35, 0.35, 1.0, 1.0)),
        hem=0.36 if coat else float(rng.uniform(0.47, 0.52)),
        logo=logo,
        open_front=bool(rng.random() < (0.7 if coat else 0.15)),
        bottom=fabric(TROUSERS, ("plain",) * 5 + ("checks", "pinstripes")),
        legwear=one(("trousers", "trousers", "trousers", "shorts", "skirt")),
        shoes=one(SHOES),
        boots=bool(rng.random() < 0.2),
        bag=one(("none", "none", "backpack", "backpack", "shoulder", "hand")),
        bag_colour=one(CLOTHES),
        side=one((-1, 1)),
    )


def figure(who: Person, pose: Pose) -> Body:
    """The shapes and joints of one person in one pose, for an orthographic camera."""
    body = Body(who, pose)
    for part in (body.legs, body.torso, body.arms, body.head, body.hat, body.bag):
        part()
    return body


def step(start: Point, length: float, angle: float) -> Point:
    """The end of a bone that hangs from `start`, swung forward by `angle`."""
    x, y, z = start
    return x, y - length * math.cos(angle), z + length * math.sin(angle)


def between(p: Point, q: Point, fraction: float) -> Point:
    """The point at that fraction of the way from p to q."""
    x, y, z = (a + fraction * (b - a) for a, b in zip(p, q, strict=True))
    return x, y, z


class Body:
    """Collects shapes; the depths of legs (< -0.2) and head (> 0.3) keep them behind and before.

    Joints, by their names in COCO, are collected beside them, seen from the camera `(2,)`, y up.
    """

    def __init__(self, who: Person, pose: Pose) -> None:
        self.who, self.pose = who, pose
        self.cos, self.sin = math.cos(pose.heading), math.sin(pose.heading)
        self.shapes: list[Shape] = []
        self.joints: dict[str, np.ndarray] = {}

    def depth(self, point: Point) -> float:
        return point[2] * self.cos - point[0] * self.sin

    def see(self, point: Point) -> np.ndarray:
        """Turns by the heading, tilts the camera down and drops the depth: `(2,)`."""
        x = point[0] * self.cos + point[2] * self.sin
        y = point[1] * math.cos(self.pose.tilt) - self.depth(point) * math.sin(self.pose.tilt)
        return np.array((x, y)) * self.who.height

    def width(self, lateral: float, sagittal: float) -> float:
        """The visible half width of an upright elliptic cylinder."""
        return math.hypot(lateral * self.cos, sagittal * self.sin)

    def add(self, depth: float, outline: np.ndarray, fill: Colour | Fabric) -> None:
        # The far side of a body gets less light.
        light = 1.0 + 1.2 * min(0.0, max(-0.15, depth if depth > -0.2 else depth + 0.4))
        self.shapes.append(Shape(depth, outline, darker(fill, light)))

    def limb(
        self, depth: float, p: Point, q: Point, r: float, s: float, fill: Colour | Fabric
    ) -> None:
        """A tapered tube with round ends from `p` (radius r) to `q` (radius s)."""
        h = self.who.height
        self.add(depth, capsule(self.see(p), self.see(q), r * h, s * h), fill)

    def ball(self, depth: float, centre: Point, width: float, height: float, fill: Colour) -> None:
        h = self.who.height
        self.add(depth, ellipse(self.see(centre), width * h, height * h), fill)

    def slab(self, depth: float, rows: Rows, fill: Colour | Fabric, x: float = 0.0) -> None:
        """A solid around the upright axis at `x`, as rows of (height, half width)."""
        squash = math.cos(self.pose.tilt)
        left = [(x - w, y * squash) for y, w in rows]
        right = [(x + w, y * squash) for y, w in reversed(rows)]
        self.add(depth, np.array(left + right) * self.who.height, fill)

    def box(self, depth: float, centre: Point, size: Point) -> None:
        """A bag with cut corners; `size` is half its width, height and thickness."""
        wide = self.width(size[0], size[2])
        corners = np.array([(-1, -0.8), (-0.8, -1), (0.8, -1), (1, -0.8), (0.8, 1), (-0.8, 1)])
        extent = np.array((wide, size[1])) * self.who.height
        self.add(depth, self.see(centre) + corners * extent, self.who.bag_colour)

    def mark(self, side: int, **joints: Point) -> None:
        """Where the joints of a side are: -1 right, 1 left."""
        for name, point in joints.items():
            self.joints[f"{'left' if side > 0 else 'right'}_{name}"] = self.see(point)

    def legs(self) -> None:
        who, thick = self.who, 0.048 * self.who.girth**0.7
        thigh = who.skin if who.legwear == "skirt" else who.bottom
        shin = who.bottom if who.legwear == "trousers" else who.skin
        for side in (-1, 1):
            swing = self.pose.stride * side
            hip = (0.046 * who.girth * side, 0.51, 0.0)
            knee = step(hip, 0.235, swing)
            ankle = step(knee, 0.235, swing - max(0.0, -swing) - 0.05)
            self.mark(side, hip=hip, knee=knee, ankle=ankle)
            toe = (ankle[0] * 1.15, ankle[1] - 0.012, ankle[2] + 0.07)
            depth = -0.4 + 0.5 * self.depth(knee)
            self.limb(depth, knee, ankle, thick * 0.72, thick * 0.5, shin)
            self.limb(depth, hip, knee, thick, thick * 0.76, thigh)
            self.limb(depth, ankle, toe, 0.024, 0.018, who.shoes)
            if who.boots:
                top = between(knee, ankle, 0.5)
                self.limb(depth, top, ankle, thick * 0.7, 0.028, who.shoes)
        if who.legwear == "skirt":
            flare = self.width(0.12 * who.girth, 0.1) + 0.2 * abs(self.pose.stride * self.sin)
            waist = self.width(0.085 * who.girth, 0.06 * who.girth)
            self.slab(-0.19, ((0.55, waist), (0.27, flare)), who.bottom)

    def torso(self) -> None:
        who, g = self.who, self.who.girth
        chest, waist = self.width(0.125 * g**0.8, 0.075 * g), self.width(0.098 * g, 0.072 * g)
        hips = self.width(0.105 * g, 0.08 * g)
        if who.hem > 0.4:
            self.slab(-0.18, ((0.6, waist), (0.46, hips)), who.bottom)
        shoulders = ((0.855, 0.035), (0.835, chest * 0.85), (0.8, chest))
        self.slab(0.0, (*shoulders, (0.64, waist), (who.hem, hips)), who.top)
        if who.open_front and self.cos > 0.2:
            gap = 0.035 * self.cos
            rows = ((0.85, gap * 0.6), (who.hem, gap))
            self.slab(0.01, rows, who.top.second, x=0.06 * self.sin)
        elif abs(self.cos) > 0.3:
            self.logo(0.6 * chest * abs(self.cos))

    def logo(self, half: float) -> None:
        """A print on chest and back, so that it can be matched between the two."""
        fill = self.who.top.second
        if self.who.logo == "disc":
            self.ball(0.01, (0, 0.72, 0), half * 0.85, 0.055, fill)
        elif self.who.logo == "block":
            self.slab(0.01, ((0.78, half * 0.8), (0.66, half * 0.8)), fill)
        elif self.who.logo == "bar":
            self.slab(0.01, ((0.74, half * 1.5), (0.69, half * 1.5)), fill)

    def arms(self) -> None:
        who, thick = self.who, 0.034 * self.who.girth**0.7
        covered = who.top if who.sleeves == 1 else who.skin
        for side in (-1, 1):
            shoulder = (0.118 * who.girth**0.8 * side, 0.795, 0.0)
            swing = -0.8 * self.pose.stride * side
            elbow = step((shoulder[0] * 1.15, 0.795, 0.0), 0.155, swing)
            wrist = step(elbow, 0.15, swing + 0.3)
            self.mark(side, shoulder=shoulder, elbow=elbow, wrist=wrist)
            depth = self.depth(elbow)
            self.limb(depth, wrist, step(wrist, 0.03, swing), thick * 0.7, thick * 0.6, who.skin)
            self.limb(depth, elbow, wrist, thick * 0.8, thick * 0.65, covered)
            self.limb(depth, shoulder, elbow, thick, thick * 0.8, covered)
            if 0 < who.sleeves < 1:
                cuff = between(shoulder, elbow, 2 * who.sleeves)
                self.limb(depth, shoulder, cuff, thick * 1.1, thick, who.top)
            if who.bag == "hand" and side == who.side:
                self.box(depth, (wrist[0], wrist[1] - 0.1, wrist[2]), (0.075, 0.06, 0.04))

    def head(self) -> None:
        who, front = self.who, self.cos > -0.2
        self.joints["nose"] = self.see((0, 0.92, 0.06))
        for side in (-1, 1):
            self.mark(side, eye=(0.02 * side, 0.935, 0.05), ear=(0.045 * side, 0.925, 0.0))
        self.limb(0.05, (0, 0.84, 0), (0, 0.9, 0.01), 0.03, 0.028, darker(who.skin, 0.85))
        self.ball(0.4, (0, 0.924, 0.014), 0.046, 0.062, who.skin)
        if who.hairstyle == "bald":
            return
        self.ball(0.39 if front else 0.41, (0, 0.944, -0.014), 0.05, 0.06, who.hair)
        self.add(0.42, cap(self.see((0, 0.95, -0.008)), 0.05, 0.048), who.hair)
        if who.hairstyle == "long":
            self.limb(
                -0.1 if front else 0.38, (0, 0.93, -0.025), (0, 0.78, -0.06), 0.05, 0.058, who.hair
            )
        if who.hairstyle == "bun":
            self.ball(0.3 if front else 0.43, (0, 0.985, -0.045), 0.03, 0.03, who.hair)

    def hat(self) -> None:
        who, crown = self.who, (0.0, 0.952, 0.0)
        if who.hat == "none":
            return
        self.add(0.5, cap(self.see(crown), 0.056, 0.056), who.hat_colour)
        if who.hat == "cap":
            peak = (0.0, 0.952, 0.1)
            self.limb(0.5 * self.cos, (0, 0.956, 0.04), peak, 0.024, 0.014, who.hat_colour)
        elif who.hat == "brim":
            self.ball(0.5, crown, 0.1, 0.02, who.hat_colour)

    def bag(self) -> None:
        who = self.who
        if who.bag == "backpack":
            behind = (0.0, 0.69, -0.1)
            self.box(1.3 * self.depth(behind), behind, (0.09, 0.12, 0.055))
            for x in (-0.07, 0.07) if self.cos > 0.2 else ():
                self.limb(0.02, (x, 0.84, 0.05), (x, 0.66, 0.07), 0.013, 0.013, who.bag_colour)
        elif who.bag == "shoulder":
            hip = (0.14 * who.girth * who.side, 0.52, -0.02)
            self.box(self.depth(hip), hip, (0.05, 0.065, 0.08))
            over = (-0.08 * who.side, 0.84, 0.0)
            self.limb(0.02, over, (hip[0] * 0.8, 0.58, 0.0), 0.009, 0.009, who.bag_colour)
