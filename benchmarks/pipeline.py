"""Training batches from JPEG files: keras_reid against a torch DataLoader, images per second.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --files=FOLDER --height=128 --width=64

Both decode, flip, pad and crop, erase a box and return uint8 batches of 64; torch with PIL and
NumPy in two workers. The contestants take turns and the medians are compared. No contestant
works during the turn of another: every turn starts a new iterator, and batches that are produced
before the clock starts are consumed first. Without `--files` the benchmark draws smooth noise and
saves JPEG files of the length of real ones.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import torch
from PIL import Image, ImageFilter

from keras_reid.data import PersonImages, pk_batches

BATCH = 64
WARM = 16  # more than either side holds ready: 4 batches each, and those under way
MEAN = np.array([124, 116, 104], np.uint8)


class TorchImages(torch.utils.data.Dataset):
    """Augment with PIL and NumPy like a typical torch program; uint8 (3, h, w)."""

    def __init__(self, paths: list[Path], size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        h, w = self.size
        image = Image.open(self.paths[row]).convert("RGB")
        if image.size != (w, h):
            image = image.resize((w, h), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        pixels = erased(cropped(pixels, round(10 * h / 256), round(10 * w / 128)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def cropped(pixels: np.ndarray, vertical: int, horizontal: int) -> np.ndarray:
    h, w, _ = pixels.shape
    padded = np.zeros((h + 2 * vertical, w + 2 * horizontal, 3), np.uint8)
    padded[vertical : vertical + h, horizontal : horizontal + w] = pixels
    top = int(torch.randint(2 * vertical + 1, ()))
    left = int(torch.randint(2 * horizontal + 1, ()))
    return padded[top : top + h, left : left + w]


def erased(pixels: np.ndarray) -> np.ndarray:
    if torch.rand(()) < 0.5:
        return pixels
    h, w, _ = pixels.shape
    for _ in range(100):
        area = float(torch.empty(()).uniform_(0.02, 0.4)) * h * w
        ratio = float(torch.empty(()).uniform_(0.3, 1 / 0.3))
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if tall < h and wide < w:
            top, left = int(torch.randint(h - tall, ())), int(torch.randint(w - wide, ()))
            pixels[top : top + tall, left : left + wide] = MEAN
            return pixels
    return pixels


def torch_loader(paths: list[Path], size: tuple[int, int]) -> torch.utils.data.DataLoader:
    images = TorchImages(paths, size)
    # Drawn with replacement, so that torch need not restart at the end of a short epoch.
    sampler = torch.utils.data.RandomSampler(images, replacement=True, num_samples=10**6)
    return torch.utils.data.DataLoader(
        images,
        BATCH,
        sampler=sampler,
        num_workers=2,
        multiprocessing_context="forkserver",
    )


def draw(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Blurred noise over a coarse pattern: about as many bytes as a photograph of a person."""
    h, w = size
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (h // 16, w // 16, 3), dtype=np.uint8))
        fine = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        fine = fine.filter(ImageFilter.GaussianBlur(1.2))
        image = Image.blend(coarse.resize((w, h), Image.Resampling.BICUBIC), fine, 0.4)
        paths.append(folder / f"{number:05}.jpg")
        image.save(paths[-1], quality=90)
    return paths


def rate(batches_of: Iterable, batches: int) -> float:
    """Return images per second of a new iterator, including its start and stop."""
    stream = iter(batches_of)
    for _ in range(WARM):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * BATCH / (time.perf_counter() - start)


def compare(paths: list[Path], size: tuple[int, int], rounds: int, batches: int) -> None:
    images = PersonImages(paths, np.arange(len(paths)) // 8, None)

    contestants: dict[str, Iterable] = {
        "torch": torch_loader(paths, size),
        "keras_reid": pk_batches(images, image_size=size),
        "keras_reid, cached": pk_batches(images, image_size=size, cache="memory"),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            rates[name].append(rate(contestant, batches))
    length = statistics.mean(path.stat().st_size for path in paths)
    print(f"{len(paths)} JPEG files of {length / 1024:.1f} KiB to {size[0]}×{size[1]}")
    peer = statistics.median(rates["torch"])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(
            f"  {name:20} {middle:7.0f} images/s  {middle / peer:5.2f} × torch"
            f"  (from {min(values):.0f} to {max(values):.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, help="a folder of JPEG files instead of drawn ones")
    parser.add_argument("--height", type=int, help="with --width: one target size, in pixels")
    parser.add_argument("--width", type=int)
    parser.add_argument("--count", type=int, default=2000, help="files to use or to draw")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--batches", type=int, default=40, help=f"batches of {BATCH} in a turn")
    flags = parser.parse_args()
    one = flags.height and flags.width
    for size in [(flags.height, flags.width)] if one else [(128, 64), (256, 128)]:
        with tempfile.TemporaryDirectory() as folder:
            paths = (
                sorted(flags.files.glob("*.jpg"))[: flags.count]
                if flags.files
                else draw(Path(folder), flags.count, size)
            )
            compare(paths, size, flags.rounds, flags.batches)


if __name__ == "__main__":
    main()
