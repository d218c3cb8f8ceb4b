"""Pictures that show what a model does."""

import colorsys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_reid.errors import InputError, counted
from keras_reid.evaluation import RankedList
from keras_reid.pixels import decode
from keras_reid.visualize.lettering import Lettering

WHITE, GRAY, NEAR, PALE = (255, 255, 255), (170, 170, 170), (0, 110, 60), (200, 220, 210)
GOLDEN = 0.618034  # of a circle of hues, which so many steps fill evenly
RED = (220, 30, 30)


def draw_alignment(
    first: np.ndarray,
    second: np.ndarray,
    path: np.ndarray,
    costs: np.ndarray | None = None,
    height: int = 256,
) -> Image.Image:
    """Two images side by side, with a line between the stripes that an alignment compares.

        local = keras_reid.models.stripes(model)(images)["local"]
        _, path = keras_reid.distances.aligned(local[:1], local[1:], return_path=True)
        draw_alignment(images[0], images[1], path[0, 0]).save("alignment.png")

    Args:
        first, second: uint8 RGB images `(h, w, 3)`, scaled to one height.
        path: booleans `(s, t)`, stripes of the first by stripes of the second, from the top down,
            as `distances.aligned(…, return_path=True)` gives them for a pair.
        costs: `d_ij` `(s, t)` in [0, 1]: the less a step of the path costs, the stronger is its
            line; None draws all alike.
        height: of the images in the picture, in pixels.

    Raises:
        InputError: no images, or a path of another shape or type.
    """
    path = np.asarray(path)
    strength = np.ones(path.shape) if costs is None else 1 - np.asarray(costs, float)
    if path.ndim != 2 or path.dtype != bool or strength.shape != path.shape:
        raise InputError(
            f"`path` must be booleans (s, t), with costs (s, t), got {path.dtype} {path.shape} and "
            f"costs {strength.shape}. Of distances.aligned(x, y, return_path=True) pass one pair, "
            "path[i, j]."
        )
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
    """A contact sheet: one row of images for each of the largest groups, with its number and size.

    Args:
        path: (n,) image files.
        group: (n,) integers, -1 for images in no group, which are not drawn.
        embeddings: (n, d), by which a row begins with what is nearest to the mean of its group and
            ends with what is farthest, which belongs to it least; of a larger group the middle is
            left out. None: the first images, in their order.
        rows, columns: groups, and images of each, at most.
        height: of an image in pixels; images are drawn half as wide.

    Raises:
        InputError: no image is in a group.
    """
    group = np.asarray(group)
    numbers, sizes = np.unique(group[group >= 0], return_counts=True)
    if not len(numbers):
        raise InputError(f"a sheet needs a group: none of the {len(group)} images is in one")
    largest = np.argsort(-sizes, kind="stable")[:rows]
    width, caption = max(1, height // 2), 12
    step = height + caption
    picture = Image.new("RGB", (columns * width, len(largest) * step), WHITE)
    draw = ImageDraw.Draw(picture)
    for row, (number, size) in enumerate(zip(numbers[largest], sizes[largest], strict=True)):
        shown = _spread(np.flatnonzero(group == number), embeddings, columns)
        order = "" if embeddings is None else ", nearest to its mean first, farthest last"
        draw.text(
            (2, row * step), f"person {number + 1:04d}: {counted(size, 'image')}{order}", fill=NEAR
        )
        for column, i in enumerate(shown):
            place = (column * width, row * step + caption)
            picture.paste(thumbnail(path[i], width, height), place)
    return picture


def draw_ranked_lists(
    lists: Sequence[RankedList], query: Any, gallery: Any, height: int = 96
) -> Image.Image:
    """A row for each query: its image, and what is nearest, framed green if it is the same person.

    Args:
        lists: of `evaluation.ranked_lists`.
        query, gallery: files of all images, (q,) and (g,).
        height: of an image in pixels; images are drawn half as wide.

    Raises:
        InputError: no lists.
    """
    if not lists:
        raise InputError("ranked lists are of one query at least: received none")
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
    """An image file in that size."""
    return Image.fromarray(decode(path)).resize((width, height), Image.Resampling.BICUBIC)


def _spread(members: np.ndarray, embeddings: np.ndarray | None, count: int) -> np.ndarray:
    """Which images of a group are drawn, and in which order."""
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
    """An image with its body points: bright where they are sure, and the heat of parts in red.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        keypoints: `(k, 3)`, x and y as shares of width and height, and confidence.
        heat: `(rows, columns, k)` of `layers.KeypointHeatmaps`; None draws none.
        height: of the picture in pixels.

    Raises:
        InputError: no image, or points of another shape.
    """
    points = np.asarray(keypoints, float)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"body points are (k, 3): received {points.shape}")
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
    """An image in gray, with a map over it in red, such as that of `activation`.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        heat: `(rows, columns)` in [0, 1]; what is outside is cut.
        height: of the picture in pixels.

    Raises:
        InputError: no image.
    """
    picture = scaled(image, height).convert("L").convert("RGB")
    _paint(picture, np.asarray(heat, float))
    return picture


def _paint(picture: Image.Image, heat: np.ndarray) -> None:
    """Red where a map (rows, columns) is 1, nothing where it is 0."""
    mask = Image.fromarray((160 * np.clip(heat, 0, 1)).astype(np.uint8))
    picture.paste(RED, (0, 0), mask.resize(picture.size, Image.Resampling.BICUBIC))


def activation(maps: np.ndarray, query: np.ndarray | None = None) -> np.ndarray:
    """`a = max(0, ⟨m(x, y), v⟩)` over its largest, v the mean of the query's map over positions.

    Where an embedding that is the mean of a map comes from: `⟨v, u⟩` of query and image is the
    mean of these products over the image's positions. Of the image itself if there is no query.

    Args:
        maps: `(rows, columns, c)` of `models.feature_maps`.
        query: `(rows, columns, c)`.

    Returns:
        (rows, columns), in [0, 1].
    """
    whole = np.asarray(maps if query is None else query, float).mean(axis=(0, 1))
    products = np.maximum(np.asarray(maps, float) @ whole, 0)
    return products / max(products.max(), 1e-12)


def draw_tracks(
    frame: np.ndarray, boxes: np.ndarray, names: Sequence[Any], trails: Sequence[np.ndarray] = ()
) -> Image.Image:
    """A frame with a box and a name for each person, in a color of their own.

    Args:
        frame: uint8 RGB `(h, w, 3)`.
        boxes: `(n, 4)` as x, y, width, height in pixels.
        names: n of them; the same name has the same color in every frame.
        trails: for each box the points `(m, 2)` where the person was.

    Raises:
        InputError: no frame.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    picture = scaled(frame, np.asarray(frame).shape[0])
    draw = ImageDraw.Draw(picture)
    for trail, name in zip(trails, names, strict=False):
        if len(trail) > 1:
            draw.line([(float(x), float(y)) for x, y in trail], fill=_color(name), width=2)
    size = max(11, picture.height // 45)  # of letters that are read in a video of that size
    for (x, y, w, h), name in zip(boxes.tolist(), names, strict=True):
        draw.rectangle([x, y, x + w, y + h], outline=_color(name), width=2)
        place = (x + 2, max(0.0, y - size - 3))
        Lettering(name, size).draw(draw, place, _color(name), WHITE)
    return picture


def draw_timeline(
    seen: Mapping[Any, Sequence[tuple[float, float]]], width: int = 900, row: int = 18
) -> Image.Image:
    """Who was there when: a row for each person, in the order in which they came.

    Args:
        seen: by name, from which second to which the person was seen, once or several times.
        width, row: of the picture, and height of a row, in pixels.

    Raises:
        InputError: no persons.
    """
    times = [time for spans in seen.values() for time in spans]
    if not times:
        raise InputError("`seen` must have at least one person, got none. Lower n_init.")
    first, last = min(begin for begin, _ in times), max(end for _, end in times)
    names, margin = sorted(seen, key=lambda name: min(seen[name])), 8
    font = ImageFont.load_default(row * 2 // 3)
    texts = [Lettering(name, row * 2 // 3) for name in names]
    left = margin + round(max(text.width for text in texts)) + margin
    scale = (width - left - margin) / max(last - first, 1e-9)
    picture = Image.new("RGB", (width, (len(names) + 1) * row + margin), WHITE)
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        top = number * row
        texts[number].draw(draw, (margin, top + 1), _color(name))
        for begin, end in seen[name]:
            ends = left + (begin - first) * scale, left + max((end - first) * scale, 2)
            draw.rectangle([ends[0], top + 3, ends[1], top + row - 4], fill=_color(name))
    bottom = len(names) * row
    draw.line([(left, bottom), (width - margin, bottom)], fill=NEAR)
    begun, ended = f"{first:.1f} s", f"{last:.1f} s"
    draw.text((left, bottom + 2), begun, fill=NEAR, font=font)
    draw.text((width - margin - font.getlength(ended), bottom + 2), ended, fill=NEAR, font=font)
    return picture


def _color(name: Any) -> tuple[int, int, int]:
    """A strong color that depends on the name alone; those of numbers in a row are far apart."""
    number = name if isinstance(name, int) else zlib.crc32(str(name).encode())
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 1.0, (0.8, 0.55)[number % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def scaled(image: Any, height: int) -> Image.Image:
    """uint8 RGB `(h, w, 3)` as a picture of that height."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(f"images are uint8 RGB (h, w, 3): received {pixels.dtype} {pixels.shape}")
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
