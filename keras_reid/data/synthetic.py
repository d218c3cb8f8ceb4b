"""Synthetic pedestrians under synthetic cameras: a data set without download that shows nobody."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keras_reid.data.drawing import Shape, dim, ellipse, paint
from keras_reid.data.keypoints import in_pixels, write_points
from keras_reid.data.pedestrians import (
    BEIGE,
    BLACK,
    BLUE,
    BROWN,
    CHARCOAL,
    GREEN,
    GREY,
    MAUVE,
    NAVY,
    OCHRE,
    RED,
    WHITE,
    Person,
    Pose,
    figure,
    person,
)
from keras_reid.errors import InputError
from keras_reid.io import new_folder, read_json
from keras_reid.names import expanded
from keras_reid.skeletons import COCO

RECORD = "synthetic.json"
VERSION = 1  # of the drawings: a change of any pixel makes another data set
PEOPLE, CAMERAS, INSTANCES = range(3)  # separate streams of random numbers

STONE = ((150, 146, 138), (112, 108, 104), (176, 168, 150), (96, 104, 110), (134, 112, 96))
SHADES = {
    "black": (BLACK,),
    "gray": (CHARCOAL, GREY),
    "white": (WHITE,),
    "blue": (NAVY, BLUE),
    "red": (RED,),
    "green": (GREEN,),
    "yellow": (BEIGE, OCHRE),
    "brown": (BROWN,),
    "purple": (MAUVE,),
}
ATTRIBUTES = (
    *("backpack", "bag", "handbag", "hat", "hair", "up", "down"),
    *(part + colour for part in ("up", "down") for colour in SHADES),
)
GROUND = ((120, 118, 114), (92, 92, 94), (150, 142, 126), (86, 104, 76))


@dataclass(frozen=True)
class Camera:
    """What all images of one camera share."""

    heading: float  # of most people, radians; 0 walks towards the camera
    tilt: float  # radians downwards
    gains: np.ndarray  # (3,) white balance times exposure
    gamma: float
    blur: float  # in pixels of a 128-pixel-high image
    resolution: float  # fraction of the pixels that the sensor resolves
    noise: float  # standard deviation in grey levels
    street: Image.Image


@functools.lru_cache(maxsize=64)
def make_camera(camera: int, seed: int) -> Camera:
    """The camera of that number, a function of the seed."""
    rng = np.random.default_rng((seed, CAMERAS, camera))
    headings = (0.0, 180.0, 65.0, 235.0, 300.0, 125.0)
    return Camera(
        heading=math.radians(headings[(camera - 1) % 6] + rng.uniform(-15, 15)),
        tilt=rng.uniform(0.0, 0.35),
        gains=rng.uniform(0.84, 1.16, 3) * rng.uniform(0.75, 1.15),
        gamma=rng.uniform(0.75, 1.4),
        blur=rng.uniform(0.0, 0.9),
        resolution=rng.uniform(0.5, 1.0),
        noise=rng.uniform(2.0, 8.0),
        street=street(rng),
    )


def street(rng: np.random.Generator, height: int = 256) -> Image.Image:
    """A backdrop four times as wide as a person image: wall, ground and things that stand there."""
    width, horizon = 2 * height, round(height * rng.uniform(0.45, 0.8))
    wall, ground = STONE[rng.integers(len(STONE))], GROUND[rng.integers(len(GROUND))]
    image = Image.new("RGB", (width, height), wall)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(8, 20)):
        left, top = rng.uniform(0, width), rng.uniform(-0.2, 0.7) * horizon
        right, bottom = left + rng.uniform(10, 70), top + rng.uniform(10, 120)
        shade = dim(STONE[rng.integers(len(STONE))], rng.uniform(0.5, 1.3))
        canvas.rectangle((left, top, right, min(bottom, horizon)), fill=shade)
    canvas.rectangle((0, horizon, width, height), fill=ground)
    for _ in range(rng.integers(0, 8)):
        slope, left = rng.uniform(-80, 80), rng.uniform(0, width)
        line = dim(ground, rng.uniform(0.75, 1.25))
        canvas.line((left, horizon, left + slope, height), fill=line, width=int(rng.integers(2, 8)))
    for _ in range(rng.integers(2, 7)):
        foot, left = rng.uniform(horizon, height), rng.uniform(0, width)
        shade = dim(STONE[rng.integers(len(STONE))], rng.uniform(0.3, 1.1))
        canvas.rectangle((left, rng.uniform(0, 0.8) * foot, left + rng.uniform(4, 30), foot), shade)
    return image.filter(ImageFilter.GaussianBlur(1.5))


@functools.lru_cache(maxsize=4096)
def make_person(identity: int, seed: int) -> Person:
    """The person of that identity, a function of the seed."""
    return person(np.random.default_rng((seed, PEOPLE, identity)))


def draw(
    identity: int, camera: int, instance: int, seed: int = 0, size: tuple[int, int] = (128, 64)
) -> np.ndarray:
    """One image of one identity: uint8 `(h, w, 3)`, a function of its arguments only.

    `identity` and `instance` count from 0, `camera` from 1; `size` is (height, width) in pixels.
    """
    return render(identity, camera, instance, seed, size)[0]


def render(
    identity: int, camera: int, instance: int, seed: int = 0, size: tuple[int, int] = (128, 64)
) -> tuple[np.ndarray, np.ndarray]:
    """The image of `draw`, and the body points (17, 3) of COCO, see `keras_reid.data.keypoints`.

    Points have the confidence 1 inside the image, be they hidden or not, and 0 beyond it.
    """
    rng = np.random.default_rng((seed, INSTANCES, identity, camera, instance))
    view, (height, width) = make_camera(camera, seed), size
    fine = min(8, max(2, round(256 / height)))  # drawn larger, then averaged down
    image = backdrop(view, rng, (width * fine, height * fine))
    unit = min(height, 2 * width) * fine * rng.uniform(0.82, 1.02)
    foot = (
        width * fine * (0.5 + rng.normal(0, 0.05)),
        height * fine * (0.5 + rng.normal(0, 0.025)) + unit * 0.49,
    )
    if rng.random() < 0.2:
        beside = foot[0] + rng.choice((-1, 1)) * rng.uniform(0.2, 0.35) * unit
        walk(image, person(rng), view, rng, (beside, foot[1] - 0.06 * unit), unit * 0.9)
    joints = walk(image, make_person(identity, seed), view, rng, foot, unit)
    shares = np.array([joints[name] for name in COCO.names]) / (width * fine, height * fine)
    inside = ((shares >= 0) & (shares <= 1)).all(axis=1, keepdims=True)
    if rng.random() < 0.25:
        occlude(image, view, rng, foot, unit)
    return expose(image, view, rng, size), np.concatenate([shares, inside], axis=1)


def backdrop(view: Camera, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """The part of the street in front of which the person happens to walk."""
    wide, high = view.street.size
    tall = high * rng.uniform(0.7, 1.0)
    across = min(wide, tall * size[0] / size[1])
    left, top = rng.uniform(0, wide - across), rng.uniform(0, high - tall)
    return view.street.resize(
        size, Image.Resampling.BILINEAR, box=(left, top, left + across, top + tall)
    )


def walk(
    image: Image.Image,
    who: Person,
    view: Camera,
    rng: np.random.Generator,
    foot: tuple[float, float],
    unit: float,
) -> dict[str, np.ndarray]:
    """Paints a person who mostly walks the way of this camera, and sometimes comes back.

    Returns the joints in pixels.
    """
    heading = view.heading + math.radians(rng.normal(0, 18)) + math.pi * (rng.random() < 0.2)
    pose = Pose(heading, 0.5 * math.sin(rng.uniform(0, 2 * math.pi)), view.tilt)
    shadow = Shape(-9.0, ellipse(np.array((0.03, 0.01)), 0.2, 0.03), (58, 58, 60))
    body = figure(who, pose)
    paint(image, [shadow, *body.shapes], foot, unit)
    return {name: np.asarray(foot) + at * (unit, -unit) for name, at in body.joints.items()}


def occlude(
    image: Image.Image,
    view: Camera,
    rng: np.random.Generator,
    foot: tuple[float, float],
    unit: float,
) -> None:
    """Hides a part behind another person, a post or something low."""
    kind, side = rng.integers(3), rng.choice((-1, 1))
    shade = dim(STONE[rng.integers(len(STONE))], rng.uniform(0.4, 1.1))
    if kind == 0:
        beside = foot[0] + side * rng.uniform(0.17, 0.26) * unit
        walk(image, person(rng), view, rng, (beside, foot[1] + 0.05 * unit), unit * 1.05)
    elif kind == 1:
        left = foot[0] + side * rng.uniform(0.0, 0.12) * unit
        box = (left, 0, left + rng.uniform(0.03, 0.1) * unit, image.height)
        ImageDraw.Draw(image).rectangle(box, fill=shade)
    else:
        top = foot[1] - rng.uniform(0.12, 0.4) * unit
        ImageDraw.Draw(image).rectangle((0, top, image.width, image.height), fill=shade)


def expose(
    image: Image.Image, view: Camera, rng: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
    """Lens, sensor and white balance: from a fine RGB drawing to uint8 `(h, w, 3)`."""
    height, width = size
    fraction = view.resolution * rng.uniform(0.8, 1.0)
    sensor = (max(4, round(width * fraction)), max(8, round(height * fraction)))
    image = image.resize(sensor, Image.Resampling.BOX)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(view.blur * rng.uniform(0.5, 1.3) * height / 128))
    light = np.asarray(image, np.float32) / 255.0
    light = light**view.gamma * (view.gains * rng.uniform(0.85, 1.15)).astype(np.float32)
    pixels = 255.0 * light + view.noise * rng.standard_normal(light.shape, np.float32)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def generate(
    root: str | Path,
    train_identities: int = 100,
    test_identities: int = 50,
    cameras: int = 4,
    images_per_camera: int = 3,
    distractors: int = 20,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
) -> Path:
    """Writes a synthetic data set in the layout of Market-1501 and returns its folder.

    Every identity is seen `images_per_camera` times by each camera. Of a test identity the first
    image of each camera is a query, the others are gallery, where `distractors` images of
    identity 0000 join them. keypoints.csv holds the body points of all images and attributes.csv
    what each identity wears. The folder appears at once and complete. A folder that was made with
    the same arguments is left as it is.

    Raises InputError for arguments out of range and for a `root` that holds anything else.
    """
    parameters = {
        "version": VERSION,
        "train_identities": train_identities,
        "test_identities": test_identities,
        "cameras": cameras,
        "images_per_camera": images_per_camera,
        "distractors": distractors,
        "size": list(size),
        "seed": seed,
    }
    check_parameters(parameters)
    root = expanded(root)
    if made_before(root, parameters):
        return root
    try:
        with new_folder(root) as staged:
            _fill(staged, parameters)
    except InputError:
        if not made_before(root, parameters):  # by another process meanwhile
            raise
    return root


def _fill(folder: Path, parameters: dict[str, Any]) -> None:
    """The whole data set."""
    height, width = parameters["size"]
    points = {}
    for name, image, shares in pictures(parameters):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name, quality=90)
        points[name] = in_pixels(shares, width, height)
    write_points(folder / "keypoints.csv", COCO, points)
    write_attributes(folder / "attributes.csv", parameters)
    (folder / RECORD).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def check_parameters(parameters: dict[str, Any]) -> None:
    """Raises InputError for the first argument that is too small to make a data set."""
    least = {"cameras": 2, "images_per_camera": 2, "distractors": 0, "seed": 0}
    for name in ("train_identities", "test_identities", *least):
        if parameters[name] < least.get(name, 1):
            raise InputError(
                f"synthetic pedestrians need {name} of {least.get(name, 1)} or more, "
                f"got {parameters[name]}: raise it"
            )
    if len(parameters["size"]) != 2 or min(parameters["size"]) < 16:
        raise InputError(
            "synthetic pedestrians need a size (height, width) of 16 pixels or more each way, "
            f"got {tuple(parameters['size'])}: raise it"
        )


def made_before(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether `root` holds this very data set; raises InputError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        made_with = read_json(root / RECORD, {}, "Restore it.")
    except InputError:
        raise InputError(
            f"synthetic pedestrians never overwrite a folder that they did not make, and {root} "
            f"has no readable {RECORD}: name another folder or remove this one"
        ) from None
    differing = [name for name in parameters if made_with.get(name) != parameters[name]]
    if differing:
        name = differing[0]
        raise InputError(
            f"a folder holds one synthetic data set, and {root} was made with "
            f"{name}={made_with.get(name)}, not {name}={parameters[name]}: "
            "name another folder, or remove this one"
        )
    return True


def write_attributes(table: Path, parameters: dict[str, Any]) -> None:
    """What the identities of a data set wear, as `keras_reid.data.read_attributes` reads it."""
    last = parameters["train_identities"] + parameters["test_identities"]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["identity", *ATTRIBUTES])
        for identity in range(1, last + 1):
            worn = attributes(identity, parameters["seed"])
            writer.writerow([f"{identity:04d}", *(1 + worn[name] for name in ATTRIBUTES)])


def attributes(identity: int, seed: int = 0) -> dict[str, bool]:
    """What an identity wears, by the names `ATTRIBUTES`."""
    who = make_person(identity, seed)
    worn = {
        "backpack": who.bag == "backpack",
        "bag": who.bag == "shoulder",
        "handbag": who.bag == "hand",
        "hat": who.hat != "none",
        "hair": who.hairstyle == "long",
        "up": who.sleeves < 1,
        "down": who.legwear == "trousers",
    }
    for part, fabric in (("up", who.top), ("down", who.bottom)):
        worn |= {part + name: fabric.colour in shades for name, shades in SHADES.items()}
    return worn


def pictures(parameters: dict[str, Any]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields every image of the data set after its path inside the folder, and its body points."""
    last_train, cameras = parameters["train_identities"], range(1, parameters["cameras"] + 1)
    last = last_train + parameters["test_identities"]
    seed, size = parameters["seed"], tuple(parameters["size"])
    for identity in range(1, last + 1):
        for camera in cameras:
            for shot in range(parameters["images_per_camera"]):
                held_out = "bounding_box_test" if shot else "query"
                split = held_out if identity > last_train else "bounding_box_train"
                name = f"{split}/{identity:04d}_c{camera}s1_{shot:06d}_00.jpg"
                yield name, *render(identity, camera, shot, seed, size)
    for extra in range(parameters["distractors"]):
        camera = cameras[extra % len(cameras)]
        name = f"bounding_box_test/0000_c{camera}s1_{extra:06d}_00.jpg"
        yield name, *render(last + 1 + extra, camera, 0, seed, size)
