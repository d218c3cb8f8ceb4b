"""Synthetic data set of pedestrians and cameras, without download and without real persons."""

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keras_reid import checks
from keras_reid.data.keypoints import in_pixels, write_points
from keras_reid.data.pedestrians import ATTRIBUTES, Figure, Person, dim
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.io import new_folder, read_json, write_table
from keras_reid.names import expanded
from keras_reid.skeletons import COCO

RECORD = "synthetic.json"
VERSION = 2  # version of the drawings; increment it if any pixel changes
PEOPLE, CAMERAS, INSTANCES = range(3)  # separate streams of random numbers

STONE = ((150, 146, 138), (112, 108, 104), (176, 168, 150), (96, 104, 110), (134, 112, 96))


class Camera(NamedTuple):
    """Properties that all images of one camera share."""

    heading: float  # direction of most people, radians; 0 is towards the camera
    tilt: float  # radians downwards
    gains: np.ndarray  # (3,) white balance times exposure
    gamma: float
    blur: float  # in pixels of a 128-pixel-high image
    resolution: float  # fraction of the pixels that the sensor resolves
    noise: float  # standard deviation in gray levels
    street: Image.Image


@functools.lru_cache(maxsize=64)
def make_camera(camera: int, seed: int) -> Camera:
    """Return the camera of a number and a seed."""
    rng = np.random.default_rng((seed, CAMERAS, camera))
    headings = (0, 180, 65, 235, 300, 125)
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
    """Return a backdrop (height, 2·height) of wall, ground and boxes."""
    width, horizon = 2 * height, height * rng.uniform(0.45, 0.8)
    image = Image.new("RGB", (width, height), stone(rng))
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, horizon, width, height), fill=stone(rng))
    for _ in range(rng.integers(15, 30)):
        left, top = rng.uniform(0, width), rng.uniform(-0.2, 0.8) * height
        box = (left, top, left + rng.uniform(4, 60), top + rng.uniform(10, 120))
        canvas.rectangle(box, fill=stone(rng))
    return image.filter(ImageFilter.GaussianBlur(1.5))


def stone(rng: np.random.Generator) -> tuple[int, int, int]:
    """Return a random color of the street."""
    return dim(STONE[rng.integers(len(STONE))], rng.uniform(0.4, 1.3))


@functools.lru_cache(maxsize=4096)
def make_person(identity: int, seed: int) -> Person:
    """Return the person of an identity and a seed."""
    return Person(np.random.default_rng((seed, PEOPLE, identity)))


def draw(
    identity: int, camera: int, instance: int, seed: int = 0, size: tuple[int, int] = (128, 64)
) -> np.ndarray:
    """Return an image of an identity, uint8 `(h, w, 3)`; the same arguments give the same image.

    Args:
        identity: number of the person, from 0.
        camera: number of the camera, from 1.
        instance: number of the image, from 0.
        seed: seed of all persons and cameras.
        size: (height, width) in pixels.

    Example:
        >>> draw(identity=5, camera=1, instance=0, size=(64, 32)).shape
        (64, 32, 3)
    """
    return render(identity, camera, instance, seed, size)[0]


def render(
    identity: int, camera: int, instance: int, seed: int = 0, size: tuple[int, int] = (128, 64)
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of `draw`, and the body points (17, 3) of COCO, see `data.keypoints`.

    Points have confidence 1 inside the image, also if they are hidden, and 0 outside.

    Args:
        identity: number of the person, from 0.
        camera: number of the camera, from 1.
        instance: number of the image, from 0.
        seed: seed of all persons and cameras.
        size: (height, width) in pixels.
    """
    rng = np.random.default_rng((seed, INSTANCES, identity, camera, instance))
    view, (height, width) = make_camera(camera, seed), size
    fine = min(8, max(2, round(256 / height)))  # drawn larger, then averaged down
    high, wide = height * fine, width * fine
    image = backdrop(view, rng, (wide, high))
    unit = min(high, 2 * wide) * rng.uniform(0.82, 1.02)
    feet = wide * (0.5 + rng.normal(0, 0.05)), high * (0.5 + rng.normal(0, 0.025)) + unit * 0.49
    joints = walk(image, make_person(identity, seed), view, rng, feet, unit)
    shares = np.array([joints[name] for name in COCO.names]) / (wide, high)
    inside = ((shares >= 0) & (shares <= 1)).all(axis=1, keepdims=True)
    if rng.random() < 0.15:  # another person hides a part
        beside = feet[0] + rng.choice((-1, 1)) * rng.uniform(0.17, 0.3) * unit
        walk(image, Person(rng), view, rng, (beside, feet[1] + 0.05 * unit), unit * 1.05)
    if rng.random() < 0.15:  # a low wall hides a part
        top = feet[1] - rng.uniform(0.12, 0.4) * unit
        ImageDraw.Draw(image).rectangle((0, top, wide, high), fill=stone(rng))
    return expose(image, view, rng, size), np.concatenate([shares, inside], axis=1)


def backdrop(view: Camera, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Return a random part of the street."""
    wide, high = view.street.size
    tall = high * rng.uniform(0.7, 1.0)
    across = min(wide, tall * size[0] / size[1])
    left, top = rng.uniform(0, wide - across), rng.uniform(0, high - tall)
    box = (left, top, left + across, top + tall)
    return view.street.resize(size, Image.Resampling.BILINEAR, box)


def walk(
    image: Image.Image,
    who: Person,
    view: Camera,
    rng: np.random.Generator,
    feet: tuple[float, float],
    unit: float,
) -> dict[str, np.ndarray]:
    """Draw a person, mostly in the heading of this camera; return the joints in pixels."""
    heading = view.heading + math.radians(rng.normal(0, 18)) + math.pi * (rng.random() < 0.2)
    figure = Figure(who, heading, 0.5 * math.sin(rng.uniform(0, 2 * math.pi)), view.tilt)
    figure.paint(image, feet, unit)
    return {name: feet + at * (unit, -unit) for name, at in figure.joints.items()}


def expose(
    image: Image.Image, view: Camera, rng: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
    """Apply lens, sensor and white balance to a fine drawing; return uint8 `(h, w, 3)`."""
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


# Its arguments identify a data set; a class of them would have this one user.
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
    """Write a synthetic data set in the layout of Market-1501 and return its folder.

    Each camera takes `images_per_camera` images of each identity. The first image of a test
    identity in each camera is a query. The other images are the gallery, with `distractors` images
    of identity 0000. keypoints.csv has the body points of all images, attributes.csv the clothes of
    each identity. The folder appears when it is complete. A folder with a data set of the same
    arguments is not changed.

    Args:
        root: folder of the data set.
        train_identities: number of training persons.
        test_identities: number of test persons.
        cameras: number of cameras, 2 or more.
        images_per_camera: images of a person in each camera, 2 or more.
        distractors: gallery images of other persons.
        size: (height, width) in pixels, 16 or more.
        seed: seed of all random choices.

    Raises:
        InputError: arguments out of range, or `root` contains other files.

    Example:
        >>> import tempfile
        >>> small = {"cameras": 2, "images_per_camera": 2, "distractors": 0, "size": (32, 16)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = generate(folder, train_identities=1, test_identities=1, **small)
        ...     sorted(path.name for path in root.iterdir())[:3]
        ['attributes.csv', 'bounding_box_test', 'bounding_box_train']
    """
    checks.at_least(1, train_identities=train_identities, test_identities=test_identities)
    checks.at_least(2, cameras=cameras, images_per_camera=images_per_camera)
    checks.at_least(0, distractors=distractors, seed=seed)
    checks.at_least(16, "Height and width are in pixels.", size=min(size))
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
    root = expanded(root)
    if exists(root, parameters):
        return root
    try:
        with new_folder(root) as staged:
            _fill(staged, parameters)
    except InputError:
        if not exists(root, parameters):  # another process may have written it
            raise
    return root


def _fill(folder: Path, parameters: dict[str, Any]) -> None:
    """Write the files of the data set."""
    height, width = parameters["size"]
    points = {}
    for name, image, shares in pictures(parameters):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name, quality=90)
        points[name] = in_pixels(shares, width, height)
    write_points(folder / "keypoints.csv", COCO, points)
    last = parameters["train_identities"] + parameters["test_identities"]
    worn = [make_person(i, parameters["seed"]).attributes() for i in range(1, last + 1)]
    rows = ([f"{i:04d}", *(1 + one[name] for name in ATTRIBUTES)] for i, one in enumerate(worn, 1))
    write_table(folder / "attributes.csv", ["identity", *ATTRIBUTES], rows)
    (folder / RECORD).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def exists(root: Path, parameters: dict[str, Any]) -> bool:
    """Return whether `root` contains this data set; raise if it contains another one."""
    if not (root / RECORD).is_file():
        return False
    record = read_json(root / RECORD, {}, "Choose another folder.")
    for name, value in parameters.items():
        if record.get(name) != value:
            rule = f"{record.get(name)}, as in the data set in {root}"
            raise invalid(name, rule, Shown(value), "Choose another folder, or remove this one.")
    return True


def pictures(parameters: dict[str, Any]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the path inside the folder, the pixels and the body points of each image."""
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
