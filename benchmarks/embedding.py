"""Embedding of JPEG files: keras_reid against its parts and ONNX Runtime, in one run.

    python benchmarks/embedding.py
    python benchmarks/embedding.py --images=2048 --rounds=7

The pretrained model embeds synthetic pedestrians of 128×64 pixels. The
contestants take turns in one process, which keeps freed memory as the commands do:

- Decoder alone, from files to batches of pixels.
- Network alone, in a loop over a batch in memory.
- The pretrained model as in the commands (ONNX Runtime), and with `--runtime=keras` and
  `--runtime=openvino`.
- Exports, as for `--model`.
- The peer: ONNX Runtime with the same network (batch normalization folded). A thread pool with
  Pillow decodes the next batch in parallel.

The ratios are speeds divided by that of the peer. On a busy machine, compare the processor times,
which other programs change less. Needs `pip install ".[onnx,openvino]"`.
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
from keras_reid.data.inputs import pixel_batches

BATCH = 16
PEER = "ONNX Runtime, Pillow"
GOALS = {
    "commands": 1.0,
    "--runtime=openvino": 1.2,
    "export, saved_model": 0.95,
    "export, onnx": 1.0,
    "export, openvino": 1.2,
}


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
        embedders = {
            "commands": inference.load(options.model),
            "--runtime=openvino": inference.load(options.model, "openvino"),
            "--runtime=keras": inference.load(options.model, "keras"),
        }
        embedder = embedders["commands"]
        folders = {
            name: serving.export(model, root / name, format=name)
            for name in ("saved_model", "onnx", "openvino")
        }
        embedders |= {f"export, {name}": inference.load(at) for name, at in folders.items()}
        batch = next(pixel_batches(paths, BATCH, size))

        def network() -> None:
            for _ in range(len(paths) // BATCH):
                embedder([batch])

        def decoder() -> None:
            for _ in pixel_batches(paths, BATCH, size):
                pass

        contestants = {
            "decoder alone": decoder,
            "network alone": network,
            **{name: of_files(one, images) for name, one in embedders.items()},
            PEER: onnx(next(folders["onnx"].glob("*.onnx")), paths, size),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        processor: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(options.rounds + 1):
            for name, act in contestants.items():
                start, used = time.perf_counter(), time.process_time()
                act()
                if turn:  # the first is for warming up
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - used)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{len(paths)} images, {size[0]}×{size[1]}, medians of {options.rounds} rounds")
    for name, middle in medians.items():
        goal = f"  (goal {GOALS[name]})" if name in GOALS else ""
        ratio = medians[PEER] / middle
        cpu = 1000 * statistics.median(processor[name]) / len(paths)
        speed = f"{len(paths) / middle:8.0f} images/s{ratio:8.2f}"
        print(f"{name:<26}{speed}{cpu:8.2f} ms of processor time per image{goal}")


if __name__ == "__main__":
    main()
