"""The exported embedder against ONNX Runtime, OpenVINO, torch and a plain SavedModel, in one run.

    python benchmarks/inference.py
    python benchmarks/inference.py --backbone=mobilenetv2 --height=128 --width=64

Each contestant embeds the same batch of uint8 images; they take turns in one process, and medians
are printed. ONNX Runtime and OpenVINO run our own exports. torch runs the same architecture
(ResNet50 v1 with last stride 1, eager, channels last). The plain SavedModel is the network as Keras
calls it, weights as variables and batch normalization as layers. The process keeps
freed memory, as the commands do. Needs `pip install ".[onnx,openvino]" torch`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from keras_reid import inference, models, serving
from keras_reid.cli.memory import keep_memory

GOALS = {"exported / ONNX Runtime": 0.95, "exported / plain SavedModel": 1.2}


def plain_saved_model(model: keras.Model, folder: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Export without folded normalizations and constant weights."""
    net = models.outputs_at_test(model)
    unit = models.unit_outputs(net)
    module = tf.Module()
    module.weights = [variable.value for variable in net.variables]
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")
    function = tf.function(unit, input_signature=[spec])
    tf.saved_model.save(module, folder, signatures={"serving_default": function})
    signature = tf.saved_model.load(folder).signatures["serving_default"]
    return lambda images: signature(images=images)["embedding"]


def torch_resnet50(threads: int) -> Callable[[np.ndarray], object]:
    """ResNet50 v1 with strides and biases as in `keras.applications`, last stride 1."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self, width: int, inner: int, stride: int) -> None:
            super().__init__()
            self.path = nn.Sequential(
                *(nn.Conv2d(width, inner, 1, stride), nn.BatchNorm2d(inner), nn.ReLU()),
                *(nn.Conv2d(inner, inner, 3, 1, 1), nn.BatchNorm2d(inner), nn.ReLU()),
                *(nn.Conv2d(inner, 4 * inner, 1), nn.BatchNorm2d(4 * inner)),
            )
            self.shortcut: nn.Module = nn.Identity()
            if stride > 1 or width != 4 * inner:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(width, 4 * inner, 1, stride), nn.BatchNorm2d(4 * inner)
                )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.path(x) + self.shortcut(x))

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for inner, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 1)):
        for i in range(count):
            layers.append(Block(width, inner, stride if i == 0 else 1))
            width = 4 * inner
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(width)]
    net = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)

    def embed(images: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return nn.functional.normalize(net(x.contiguous(memory_format=torch.channels_last)))

    return embed


def main() -> None:
    """Print images per second of each, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_memory()

    size = options.height, options.width
    model = models.build(options.backbone, None, size, weights="none")
    random = np.random.default_rng(0)
    for variable in model.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean"):
            variable.assign(random.normal(0, 0.1, variable.shape))
    images = random.integers(0, 256, (options.batch, *size, 3)).astype(np.uint8)
    given = tf.constant(images)
    with tempfile.TemporaryDirectory() as folder:
        contestants: dict[str, Callable[[], object]] = {}
        formats = {"exported": "saved_model", "ONNX Runtime": "onnx", "OpenVINO": "openvino"}
        for name, kind in formats.items():
            version = serving.export(model, f"{folder}/{name}", format=kind)
            print(f"{name}: {serving.parity(model, version, images)}", flush=True)
            saved = inference.load(version)
            contestants[name] = lambda saved=saved: saved([images])
        plain = plain_saved_model(model, f"{folder}/plain")
        contestants["plain SavedModel"] = lambda: plain(given).numpy()
        if options.backbone == "resnet50":
            embed = torch_resnet50(os.cpu_count() or 1)
            contestants["torch"] = lambda: embed(images)
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(options.rounds + 2):
            for name, work in contestants.items():
                start = time.perf_counter()
                work()
                if turn > 1:  # the first two warm up
                    times[name].append(time.perf_counter() - start)
    speed = {name: options.batch / statistics.median(t) for name, t in times.items()}
    print(f"{options.backbone}, {options.batch} images of {size[0]}×{size[1]}")
    for name, value in speed.items():
        low, high = (options.batch / edge for edge in (max(times[name]), min(times[name])))
        print(f"{name:<17} {value:7.1f} images/s ({low:.1f} to {high:.1f})")
    for pair, goal in GOALS.items():
        first, second = pair.split(" / ")
        print(f"{pair}: {speed[first] / speed[second]:.2f}, goal {goal}")


if __name__ == "__main__":
    main()
