"""Views of images for distillation: crop, flip, color, blur, and mixtures of two images.

Teacher and student see the same view (Beyer et al., A good teacher is patient and consistent, CVPR
2022, arXiv:2106.05237). Views are made by Pillow, which decodes and resizes outside of the lock of
Python. A view is a function of its images and its random generator.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

SMALLEST_SIDE = 0.7  # of a crop, relative to the side of the image
COLOR = (0.7, 1.3)  # factors of brightness, contrast and saturation
BLURRED, RADIUS = 0.2, (0.003, 0.01)  # share of the views; radius relative to the height
MIXED = 0.25  # share of the views that are a mixture of two images

COLORS: tuple[Callable[[Image.Image], Any], ...] = (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
)


class ViewSources(NamedTuple):
    """Images of the views of a round: `row` (v,), and `partner` (v,), −1 for no mixture."""

    row: np.ndarray
    partner: np.ndarray


def view_sources(num_images: int, num_views: int, seed: Sequence[int]) -> ViewSources:
    """Return the images of each view; the numbers of views of two images differ by at most 1.

    Args:
        num_images: n.
        num_views: v.
        seed: seed of the random choice.

    Example:
        >>> sources = view_sources(3, 6, seed=(0, 1))
        >>> np.bincount(sources.row).tolist()
        [2, 2, 2]
    """
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(num_images) for _ in range(-(-num_views // num_images))]
    partner = rng.integers(num_images, size=num_views)
    partner[rng.random(num_views) >= MIXED] = -1
    return ViewSources(np.concatenate(rounds)[:num_views], partner)


def view(
    images: Sequence[np.ndarray], size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return a view uint8 `(h, w, 3)` of one image, or a mixture of the views of two.

    Each image is cropped, mirrored, changed in color and blurred at random. The share of the first
    image in a mixture is uniform.

    Args:
        images: one or two images uint8 `(…, …, 3)` of any size.
        size: (h, w) in pixels.
        rng: random generator.

    Example:
        >>> image = np.full((20, 10, 3), 100, np.uint8)
        >>> view([image, image], (8, 4), np.random.default_rng(0)).shape
        (8, 4, 3)
    """
    views = [_changed(Image.fromarray(image), size, rng) for image in images]
    if len(views) == 1:
        return np.asarray(views[0])
    return np.asarray(Image.blend(views[1], views[0], rng.random()))


def _changed(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    height, width = size
    sides = np.array(image.size) * rng.uniform(SMALLEST_SIDE, 1, 2)
    left, top = (image.size - sides) * rng.random(2)
    box = (left, top, left + sides[0], top + sides[1])
    image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for color, factor in zip(COLORS, rng.uniform(*COLOR, len(COLORS)), strict=True):
        image = color(image).enhance(factor)
    if rng.random() < BLURRED:
        image = image.filter(ImageFilter.GaussianBlur(height * rng.uniform(*RADIUS)))
    return image
