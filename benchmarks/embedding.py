"""Embedding of JPEG files: keras_reid against its parts and ONNX Runtime, in one run.

    python benchmarks/embedding.py
    python benchmarks/embedding.py --images=2048 --rounds=7

The pretrained model embeds synthetic pedestrians of 128×64 pixels. The
contestants take turns in one process, which keeps freed memory as the commands do:

- Decoder alone, from files to batches of pixels.
- Network alone, in a loop over a batch in memory.
- `inference.Embedder`, as in the commands.
- Exports, as for `--model`.
- ONNX Runtime with the same network (batch normalization folded). A thread pool with Pillow
  decodes the next batch in parallel.

Needs `pip install ".[onnx,openvino]"`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from keras_reid import data, inference, models, serving
from keras_reid.cli.memory import keep_memory
from keras_reid.data import synthetic

BATCH = 16


def onnx(file: Path, paths: list[str], size: tuple[int, int]) -> Callable[[], None]:
    """Decoding with Pillow in as many threads as there are processors, one batch ahead."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pool = ThreadPoolExecutor(os.cpu_count())

    def pixels(path: str) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))

    def run() -> None:
        blocks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        coming = [pool.submit(pixels, path) for path in blocks[0]]
        for following in [*blocks[1:], []]:
            batch = np.stack([future.result() for future in coming])
            coming = [pool.submit(pixels, path) for path in following]
            session.run(None, {name: batch})

    return run


def of_files(embedder: inference.Embedder, images: data.PersonImages) -> Callable[[], None]:
    return lambda: embedder.embed(images, BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="person-mobilenetv2", help="of models.PRETRAINED")
    options = parser.parse_args()
    keep_memory()
    model = models.pretrained(options.model)
    size = models.image_size(model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        people = -(-options.images // 12)
        synthetic.generate(
            root / "drawn", people, 2, cameras=6, images_per_camera=2, size=(128, 64)
        )
        paths = sorted(map(str, (root / "drawn/bounding_box_train").glob("*.jpg")))
        paths = paths[: options.images]
        nobody = np.full(len(paths), "x")
        images = data.PersonImages(np.array(paths), nobody, None)
        images = data.readable(images)
        embedder = inference.load(model)
        folders = {
            name: serving.export(model, root / name, format=name)
            for name in ("saved_model", "onnx", "openvino")
        }
        exports = {name: inference.load(folder) for name, folder in folders.items()}
        batch = next(iter(data.image_batches(images, BATCH, size)))

        def network() -> None:
            for _ in range(len(paths) // BATCH):
                embedder([batch])

        def decoder() -> None:
            for _ in data.image_batches(images, BATCH, size):
                pass

        contestants = {
            "decoder alone": decoder,
            "network alone": network,
            "Keras": of_files(embedder, images),
            **{f"exported, {name}": of_files(one, images) for name, one in exports.items()},
            "ONNX Runtime, Pillow": onnx(next(folders["onnx"].glob("*.onnx")), paths, size),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(options.rounds + 1):
            for name, act in contestants.items():
                start = time.perf_counter()
                act()
                if turn:  # the first is for warming up
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{len(paths)} images, {size[0]}×{size[1]}, medians of {options.rounds} rounds")
    for name, middle in medians.items():
        print(f"{name:<26}{len(paths) / middle:8.0f} images/s")
    slower = max(medians["decoder alone"], medians["network alone"])
    for name in ("Embedder", *(name for name in medians if name.startswith("exported"))):
        print(f"{name} / the slower part alone: {slower / medians[name]:.2f} (goal 0.95)")
        ratio = medians["ONNX Runtime, Pillow"] / medians[name]
        print(f"{name} / ONNX Runtime with Pillow: {ratio:.2f} (goal 1.3)")


if __name__ == "__main__":
    main()
