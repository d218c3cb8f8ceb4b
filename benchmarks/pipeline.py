"""Training batches from JPEG files: keras_reid against a torch DataLoader, images per second.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --files=/data/market1501/bounding_box_train --height=128 --width=64

Both decode, flip, pad and crop, erase a box and hand over uint8 batches of 64; torch with PIL and
NumPy in two workers. The contestants take turns and the medians are compared. Without `--files`
the benchmark draws smooth noise, saved as JPEG files of the length that real ones have.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import torch
from PIL import Image, ImageFilter

from keras_reid.data import PersonImages, pk_batches

BATCH = 64
MEAN = np.array([124, 116, 104], np.uint8)


class TorchImages(torch.utils.data.Dataset):
    """What a torch user writes with PIL and NumPy: one image, augmented, uint8 (3, h, w)."""

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


def torch_stream(paths: list[Path], size: tuple[int, int]) -> Iterator[torch.Tensor]:
    loader = torch.utils.data.DataLoader(
        TorchImages(paths, size),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )
    while True:
        yield from loader


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


def rate(stream: Iterator, batches: int) -> float:
    """Images per second, after the batches that lay ready are used up."""
    for _ in range(8):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * BATCH / (time.perf_counter() - start)


def compare(paths: list[Path], size: tuple[int, int], rounds: int, batches: int) -> None:
    images = PersonImages(paths, np.arange(len(paths)) // 8, None)

    def ours(cache: str | None) -> Iterator:
        return iter(pk_batches(images, image_size=size, cache=cache))

    streams: dict[str, Callable[[], Iterator]] = {
        "torch": lambda: torch_stream(paths, size),
        "keras_reid": lambda: ours(None),
        "keras_reid, cached": lambda: ours("memory"),
    }
    running = {name: start() for name, start in streams.items()}
    rates: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(rounds):
        for name, stream in running.items():
            rates[name].append(rate(stream, batches))
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
