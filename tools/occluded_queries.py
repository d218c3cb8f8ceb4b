"""Copy of a data set with occluded query images.

    python tools/occluded_queries.py --data_dir=Market-1501 --out=Market-occluded
    python evaluate.py --model=RUN --dataset=market1501 --data_dir=Market-occluded

The data set is in the Market-1501 layout. A striped or speckled rectangle covers a
fraction of each query image from below or from a side, see `place`. Other images do not change.
The rectangle depends only on the file name and the seed. With
`--keypoints=K.csv` the copy also has a `keypoints.csv`. Its covered points have
confidence 0, as those of an estimator.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from shifted_boxes import changed, random_of

from keras_reid.data.keypoints import read_points, write_points
from keras_reid.errors import InputError

Box = tuple[float, float, float, float]


def place(random: np.random.Generator, least: float, most: float) -> Box:
    """Return left, top, right and bottom of an occluding box, as fractions of width and height.

    It covers a share, uniform in [least, most], of the height from below, or of the width from the
    left or from the right, all three by even chances.
    """
    share = random.uniform(least, most)
    boxes: list[Box] = [(0, 1 - share, 1, 1), (0, 0, share, 1), (1 - share, 0, 1, 1)]
    return boxes[random.integers(3)]


def covered(image: Image.Image, box: Box, random: np.random.Generator) -> Image.Image:
    """Return the image with a striped or speckled box of two colors."""
    pixels = np.array(image.convert("RGB"))
    height, width = pixels.shape[:2]
    left, right = (round(width * edge) for edge in box[::2])
    top, bottom = (round(height * edge) for edge in box[1::2])
    colors = random.integers(0, 256, (2, 3))
    rows, columns = np.mgrid[top:bottom, left:right]
    kinds = (rows // 6 % 2, columns // 6 % 2, random.integers(0, 2, rows.shape))
    pixels[top:bottom, left:right] = colors[kinds[random.integers(3)]]
    return Image.fromarray(pixels)


def occluded(
    source: Path, out: Path, least: float, most: float, seed: int, keypoints: Path | None = None
) -> int:
    """Write the copy atomically and return the number of covered images.

    Raises:
        InputError: the data set is missing, `out` is not empty, the shares are invalid, or the
            table cannot be read.
    """
    if not 0 < least <= most < 1:
        raise InputError(f"The shares are above 0 and below 1, got {least} and {most}.")
    table = None if keypoints is None else read_points(keypoints)
    hidden: dict[str, tuple[Box, tuple[int, int]]] = {}  # with the image's size

    def behind(name: str, image: Image.Image) -> Image.Image:
        random = random_of(name, seed)
        box = place(random, least, most)
        hidden[name] = box, image.size
        return covered(image, box, random)

    count = changed(source, out, ("query",), behind)
    if table is not None:
        skeleton, rows, _ = table
        for path, points in rows.items():
            if Path(path).name in hidden:
                rows[path] = unseen(points, *hidden[Path(path).name])
        write_points(out / "keypoints.csv", skeleton, rows)
    return count


def unseen(points: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return points (k, 3) in pixels; points inside the box get the confidence 0."""
    shares = (points[:, :2] + 0.5) / size
    inside = ((shares >= box[:2]) & (shares <= box[2:])).all(1)
    return np.concatenate([points[:, :2], np.where(inside, 0, points[:, 2])[:, None]], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="Folder in the Market-1501 layout.")
    parser.add_argument("--out", required=True, help="The new folder.")
    parser.add_argument("--least", type=float, default=0.3, help="Smallest share that is covered.")
    parser.add_argument("--most", type=float, default=0.5, help="Largest share that is covered.")
    parser.add_argument("--keypoints", help="Table of body points; covered points are removed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rectangles.")
    given = parser.parse_args()
    out = Path(given.out).absolute()
    points = None if given.keypoints is None else Path(given.keypoints)
    try:
        count = occluded(Path(given.data_dir), out, given.least, given.most, given.seed, points)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{count} query images covered in {out}")


if __name__ == "__main__":
    main()
