"""Copy of a data set with displaced boxes of the test images.

    python tools/shifted_boxes.py --data_dir=Market-1501 --out=Market-shifted
    python evaluate.py --model=RUN --dataset=market1501 --data_dir=Market-shifted

The data set is in the Market-1501 layout. Each query and gallery image is cropped by a box that
is shifted and too small or too large, see `box`, and resized to its original size. Training images
do not change. The box depends only on the file name and the seed.
"""

import argparse
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from keras_reid.data.readers.layouts import image_files
from keras_reid.data.readers.market import MARKET_FOLDERS
from keras_reid.errors import InputError
from keras_reid.io import new_folder

Box = tuple[float, float, float, float]


def box(random: np.random.Generator, shift: float, crop: float) -> Box:
    """Return left, top, right and bottom of a random box, as fractions of the image's size.

    The box is moved vertically by `u · shift` of the height, u uniform in [−1, 1], and sideways by
    a random fraction of the width up to a quarter of `shift`. Then `v · crop` of the height, v
    uniform in [0, 1], is cut off at the top or the bottom with equal probability.
    """
    down, aside = random.uniform(-1, 1, 2) * (shift, shift / 4)
    top, bottom = down, 1 + down
    cut = random.uniform() * crop
    if random.integers(2):
        top += cut
    else:
        bottom -= cut
    return aside, top, 1 + aside, bottom


def cut(image: Image.Image, edges: Box) -> Image.Image:
    """Return the box, scaled to the image's size; edge pixels are repeated outside."""
    width, height = image.size
    margin_x, margin_y = (
        int(np.ceil(size * max(0, -low, high - 1)))
        for size, low, high in ((width, edges[0], edges[2]), (height, edges[1], edges[3]))
    )
    around = ((margin_y, margin_y), (margin_x, margin_x), (0, 0))
    padded = Image.fromarray(np.pad(np.asarray(image.convert("RGB")), around, mode="edge"))
    left, right = (margin_x + width * edge for edge in edges[::2])
    top, bottom = (margin_y + height * edge for edge in edges[1::2])
    return padded.resize((width, height), Image.Resampling.BICUBIC, (left, top, right, bottom))


def shifted(source: Path, out: Path, shift: float, crop: float, seed: int) -> int:
    """Write the copy atomically and return the number of cropped images.

    Raises:
        InputError: the data set is missing, `out` is not empty, or a share is invalid.
    """
    if not (0 <= shift < 1 and 0 <= crop < 1):
        raise InputError(f"`shift` and `crop` must be shares in [0, 1), got {shift} and {crop}.")

    def again(name: str, image: Image.Image) -> Image.Image:
        return cut(image, box(random_of(name, seed), shift, crop))

    return changed(source, out, ("query", "gallery"), again)


def random_of(name: str, seed: int) -> np.random.Generator:
    """Return the random generator of a file name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def changed(
    source: Path,
    out: Path,
    parts: tuple[str, ...],
    change: Callable[[str, Image.Image], Image.Image],
) -> int:
    """Copy a data set with `change(file name, image)` of these parts; return the number of changes.

    Raises:
        InputError: no such data set, or an `out` that is not empty.
    """
    count = 0
    with new_folder(out) as staged:
        for part, name in MARKET_FOLDERS.items():
            (staged / name).mkdir(parents=True)
            for file in image_files(source / name)[0]:
                if part not in parts:
                    _link(file, staged / name / file.name)
                    continue
                with Image.open(file) as image:
                    again = change(file.name, image)
                again.save(staged / name / file.name, quality=95, subsampling=0)
                count += 1
    return count


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # another file system
        shutil.copyfile(file, copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="Folder in the Market-1501 layout.")
    parser.add_argument("--out", required=True, help="The new folder.")
    parser.add_argument(
        "--shift", type=float, default=0.2, help="Largest vertical shift, share of the height."
    )
    parser.add_argument(
        "--crop", type=float, default=0.2, help="Largest cut at top or bottom, share of the height."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of all boxes.")
    given = parser.parse_args()
    out = Path(given.out).absolute()
    try:
        count = shifted(Path(given.data_dir), out, given.shift, given.crop, given.seed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{count} test images cut again in {out}")


if __name__ == "__main__":
    main()
