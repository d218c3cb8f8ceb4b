"""Pictures of alignments, groups, ranked lists, body points and heat maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from keras_reid import checks
from keras_reid.errors import Shown, counted, invalid
from keras_reid.evaluation import RankedList
from keras_reid.pixels import decode

WHITE, GRAY, NEAR, PALE = (255, 255, 255), (170, 170, 170), (0, 110, 60), (200, 220, 210)
RED = (220, 30, 30)


def draw_alignment(
    first: np.ndarray,
    second: np.ndarray,
    path: np.ndarray,
    costs: np.ndarray | None = None,
    height: int = 256,
) -> Image.Image:
    """Draw two images side by side, with lines between the stripes of an alignment.

    Args:
        first: uint8 RGB image `(h, w, 3)`, scaled to `height`.
        second: image of the other person, like `first`.
        path: booleans `(s, t)`, stripes of the first by stripes of the second, from the top down:
            one pair of `distances.aligned(…, return_path=True)`.
        costs: `d_ij` `(s, t)` in [0, 1]; lines of lower cost are stronger. None: equal lines.
        height: height of the images in the picture, in pixels.

    Raises:
        InputError: invalid images, or a path of another shape or type.

    Example:
        >>> import numpy as np
        >>> from keras_reid import distances, visualize
        >>> local = np.random.default_rng(0).normal(size=(2, 8, 4)).astype("float32")
        >>> _, path = distances.aligned(local[:1], local[1:], return_path=True)
        >>> images = np.zeros((2, 128, 64, 3), np.uint8)
        >>> visualize.draw_alignment(*images, np.array(path[0, 0]), height=128).size
        (192, 128)
    """
    path = np.asarray(path)
    strength = np.ones(path.shape) if costs is None else 1 - np.asarray(costs, float)
    fix = "Pass path[i, j] of distances.aligned(x, y, return_path=True)."
    checks.shapes(fix, path=("(s, t)", path.shape), costs=("(s, t)", strength.shape))
    images = [scaled(image, height) for image in (first, second)]
    gap = height // 2
    right = images[0].width + gap
    picture = Image.new("RGB", (right + images[1].width, height), WHITE)
    draw = ImageDraw.Draw(picture)
    for image, left, stripes in zip(images, (0, right), path.shape, strict=True):
        picture.paste(image, (left, 0))
        for edge in range(1, stripes):
            y = round(edge * height / stripes)
            draw.line([(left, y), (left + image.width - 1, y)], fill=GRAY)
    for i, j in np.argwhere(path):
        middles = [int((k + 0.5) * height / n) for k, n in zip((i, j), path.shape, strict=True)]
        ends = [(images[0].width, middles[0]), (right - 1, middles[1])]
        fraction = strength[i, j]
        color = tuple(round(p + fraction * (n - p)) for p, n in zip(PALE, NEAR, strict=True))
        draw.line(ends, fill=color, width=1 + round(3 * fraction))
    return picture


def draw_groups(
    path: Any,
    group: np.ndarray,
    embeddings: np.ndarray | None = None,
    rows: int = 40,
    columns: int = 12,
    height: int = 96,
) -> Image.Image:
    """Draw a contact sheet: a row of images for each of the largest groups, with number and size.

    Args:
        path: (n,) image files.
        group: (n,) integers, -1 for images in no group, which are left out.
        embeddings: (n, d). A row begins with the images nearest to the mean of the group and ends
            with the farthest, which fit least; the middle of a larger group is left out. None: the
            first images, in their order.
        rows: maximum number of groups.
        columns: maximum number of images of each group.
        height: height of an image in pixels; its width is half of that.

    Raises:
        InputError: no image is in a group.
    """
    group = np.asarray(group)
    numbers, sizes = np.unique(group[group >= 0], return_counts=True)
    if not len(numbers):
        rule = "an array with at least one number of at least 0"
        raise invalid("group", rule, Shown(f"{len(group)} images in no group"))
    largest = np.argsort(-sizes, kind="stable")[:rows]
    width, caption = max(1, height // 2), 12
    step = height + caption
    picture = Image.new("RGB", (columns * width, len(largest) * step), WHITE)
    draw = ImageDraw.Draw(picture)
    for row, (number, size) in enumerate(zip(numbers[largest], sizes[largest], strict=True)):
        members = _selected(np.flatnonzero(group == number), embeddings, columns)
        order = "" if embeddings is None else ", nearest to its mean first, farthest last"
        caption_text = f"person {number + 1:04d}: {counted(size, 'image')}{order}"
        draw.text((2, row * step), caption_text, fill=NEAR)
        for column, i in enumerate(members):
            place = (column * width, row * step + caption)
            picture.paste(thumbnail(path[i], width, height), place)
    return picture


def draw_ranked_lists(
    lists: Sequence[RankedList], query: Any, gallery: Any, height: int = 96
) -> Image.Image:
    """Draw a row for each query: its image, and the nearest images, green if of the same person.

    Args:
        lists: one or more of `evaluation.ranked_lists`.
        query: (q,) files of all query images.
        gallery: (g,) files of all gallery images.
        height: height of an image in pixels; its width is half of that.
    """
    width, edge = height // 2, max(2, height // 32)
    columns = 1 + max(len(one.gallery) for one in lists)
    picture = Image.new("RGB", (columns * (width + edge), len(lists) * (height + edge)), WHITE)
    for row, one in enumerate(lists):
        images = [query[one.query], *(gallery[j] for j in one.gallery)]
        colors = [(0, 0, 0), *((NEAR if same else RED) for same in one.same)]
        for column, (path, color) in enumerate(zip(images, colors, strict=True)):
            framed = Image.new("RGB", (width, height), color)
            framed.paste(thumbnail(path, width - 2 * edge, height - 2 * edge), (edge, edge))
            picture.paste(framed, (column * (width + edge), row * (height + edge)))
    return picture


def thumbnail(path: Any, width: int, height: int) -> Image.Image:
    """Return an image file in that size."""
    return Image.fromarray(decode(path)).resize((width, height), Image.Resampling.BICUBIC)


def _selected(members: np.ndarray, embeddings: np.ndarray | None, count: int) -> np.ndarray:
    """Return the rows of a group to draw, in their order."""
    if embeddings is None:
        return members[:count]
    own = np.asarray(embeddings, np.float64)[members]
    members = members[np.argsort(np.linalg.norm(own - own.mean(0), axis=1), kind="stable")]
    farthest = count // 3
    if len(members) <= count or not farthest:
        return members[:count]
    return np.concatenate([members[: count - farthest], members[-farthest:]])


def draw_keypoints(
    image: np.ndarray, keypoints: np.ndarray, heat: np.ndarray | None = None, height: int = 256
) -> Image.Image:
    """Draw an image with its body points, darker for a higher confidence, and heat of parts in red.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        keypoints: `(k, 3)`, x and y as fractions of width and height, and confidence in [0, 1].
        heat: `(rows, columns, k)` of `layers.KeypointHeatmaps`; None draws none.
        height: height of the picture in pixels.

    Raises:
        InputError: an invalid image, or points of another shape.
    """
    points = np.asarray(keypoints, float)
    checks.shapes(keypoints=("(k, 3)", points.shape))
    picture = scaled(image, height)
    if heat is not None:
        _paint(picture, np.asarray(heat, float).max(axis=-1))
    draw = ImageDraw.Draw(picture)
    radius = max(2, height // 64)
    for x, y, confidence in points.tolist():
        if confidence > 0:
            at = (x * picture.width, y * picture.height)
            box = [at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius]
            shade = tuple(round(255 * (1 - confidence * (1 - c / 255))) for c in NEAR)
            draw.ellipse(box, fill=shade, outline=WHITE)
    return picture


def draw_heat(image: np.ndarray, heat: np.ndarray, height: int = 256) -> Image.Image:
    """Draw an image in gray, with a map such as that of `activation` over it in red.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        heat: `(rows, columns)`, clipped to [0, 1].
        height: height of the picture in pixels.

    Raises:
        InputError: an invalid image.
    """
    picture = scaled(image, height).convert("L").convert("RGB")
    _paint(picture, np.asarray(heat, float))
    return picture


def _paint(picture: Image.Image, heat: np.ndarray) -> None:
    """Blend red into a picture by a map (rows, columns) in [0, 1]."""
    mask = Image.fromarray((160 * np.clip(heat, 0, 1)).astype(np.uint8))
    picture.paste(RED, (0, 0), mask.resize(picture.size, Image.Resampling.BICUBIC))


def activation(maps: np.ndarray, query: np.ndarray | None = None) -> np.ndarray:
    """Return `a = max(0, ⟨m(x, y), v⟩)` divided by its maximum.

    m is the image's map, and v is the mean of the query's map, or of the image's map if `query` is
    None. If the embedding is the mean of the map, then the mean of `⟨m(x, y), v⟩` over all
    positions is the inner product of the embeddings of query and image.

    Args:
        maps: `(rows, columns, c)` of `models.feature_maps`.
        query: `(rows, columns, c)`.

    Returns:
        (rows, columns), in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_reid import visualize
        >>> visualize.activation(np.array([[[2.0, 2.0]], [[1.0, 0.0]]]))
        array([[1. ],
               [0.3]])
    """
    whole = np.asarray(maps if query is None else query, float).mean(axis=(0, 1))
    products = np.maximum(np.asarray(maps, float) @ whole, 0)
    return products / max(products.max(), 1e-12)


def scaled(image: Any, height: int) -> Image.Image:
    """Return uint8 RGB `(h, w, 3)` as a picture of that height."""
    pixels = checks.pixels(image, "image")
    checks.shapes(image=("(h, w, 3)", pixels.shape))
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
