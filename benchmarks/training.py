"""Training steps on the CPU: keras_reid against torch, and against a bare `tf.function`.

    python benchmarks/training.py
    python benchmarks/training.py --compare_fit --backbone=resnet50 --height=256 --width=128
    python benchmarks/training.py --compare_batch_norm
    python benchmarks/training.py --compare_precision

- `--compare_torch`: `ReidModel.fit` of ResNet50 against the same network, losses and Adam in torch
  with channels last.
- `--compare_fit`: `ReidModel.fit` against a training step written out in a `tf.function`.
- `--compare_batch_norm`: the batch normalization of keras_reid against the one of Keras.
- `--compare_precision`: `--precision=mixed_bfloat16` and `mixed_float16` against float32.

Without one of these the first two are run. One batch of uint8 images lies in memory, so that
only steps are timed. Each contestant has a process of its own, which sleeps in a read from a pipe
while the other has its turn; the medians of all steps after the warm-up are compared.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# TensorFlow and torch are imported where they are used: no process loads both.
if TYPE_CHECKING:
    import keras
    import torch

IDENTITIES = 500
INSTANCES = 4
WARM = 2
RATE = 3.5e-4
# By default glibc gives the memory of feature maps back after each step, and page faults follow:
# torch took a third longer. The processes that are started here keep it, on both sides.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(2**30),
}


@dataclass(frozen=True)
class Job:
    """Return training images, the same for each contestant."""

    backbone: str
    batch: int
    height: int
    width: int

    def images(self) -> np.ndarray:
        shape = (self.batch, self.height, self.width, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def labels(self) -> np.ndarray:
        return np.arange(self.batch, dtype=np.int32) // INSTANCES


Steps = Callable[[int], list[float]]  # trains so many steps and returns the seconds of each
Contestant = Callable[[Job], Steps]


def timed(step: Callable[[], object]) -> Steps:
    def steps(count: int) -> list[float]:
        stamps = [time.perf_counter()]
        for _ in range(count):
            step()
            stamps.append(time.perf_counter())
        return np.diff(stamps).tolist()

    return steps


def embedder(job: Job) -> "keras.Model":
    from keras_reid import models

    return models.build(
        job.backbone, IDENTITIES, (job.height, job.width), weights="none", last_stride=2
    )


def fitted(model: "keras.Model", job: Job, **distillation: Any) -> Steps:
    """Return steps of `model.fit` with its iterator, metrics and callbacks.

    Args:
        model: model or learner.
        job: images.
        distillation: more arguments of `compile`.
    """
    import keras
    import tensorflow as tf

    from keras_reid import losses

    model.compile(
        keras.optimizers.Adam(RATE),
        loss={"logits": losses.IdentityLoss(), "features": losses.TripletHardLoss()},
        **distillation,
    )
    batch = (job.images(), {"identity": job.labels()})
    batches = tf.data.Dataset.from_tensors(batch).repeat()

    def steps(count: int) -> list[float]:
        begins: list[float] = []
        ends: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: begins.append(time.perf_counter()),
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()),
        )
        model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0, callbacks=[clock])
        # From end to end, so that what `fit` does between two steps counts too.
        return np.diff([begins[0], *ends]).tolist()

    return steps


def with_fit(job: Job) -> Steps:
    return fitted(embedder(job), job)


def with_keras_batch_norm(job: Job) -> Steps:
    """Return steps of `with_fit` for a model with the batch normalization of Keras."""
    import keras

    from keras_reid.layers import FusedBatchNormalization

    def layer_of(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        fused = type(layer) is FusedBatchNormalization
        kind = keras.layers.BatchNormalization if fused else type(layer)
        return kind.from_config(layer.get_config())

    model = keras.models.clone_model(embedder(job), clone_function=layer_of, recursive=True)
    return fitted(model, job)


def with_precision(policy: str, job: Job) -> Steps:
    import keras

    keras.config.set_dtype_policy(policy)
    return with_fit(job)


def with_bare_step(job: Job) -> Steps:
    import keras
    import tensorflow as tf

    from keras_reid import losses

    model = embedder(job)
    identity, triplet = losses.IdentityLoss(), losses.TripletHardLoss()
    optimizer = keras.optimizers.Adam(RATE)
    optimizer.build(model.trainable_variables)
    images, labels = tf.constant(job.images()), tf.constant(job.labels())

    @tf.function
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = identity(labels, outputs["logits"]) + triplet(labels, outputs["features"])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return timed(lambda: float(step(images, labels)))


def torch_resnet50() -> "torch.nn.Module":
    """ResNet50 with the strides and biases of `keras.applications`: images → features."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, path: nn.Module, shortcut: nn.Module) -> None:
            super().__init__()
            self.path, self.shortcut = path, shortcut

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.path(x).add_(self.shortcut(x)).relu_()

    def conv(inside: int, outside: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inside, outside, size, stride, padding=size // 2), nn.BatchNorm2d(outside)
        )

    def block(inside: int, width: int, stride: int, first: bool) -> nn.Module:
        path = nn.Sequential(
            conv(inside, width, 1, stride),
            nn.ReLU(inplace=True),
            conv(width, width, 3),
            nn.ReLU(inplace=True),
            conv(width, 4 * width, 1),
        )
        return Residual(path, conv(inside, 4 * width, 1, stride) if first else nn.Identity())

    layers = [conv(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
    inside = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(depth):
            first = number == 0
            layers.append(block(inside, width, stride if first else 1, first))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def torch_loss(
    features: "torch.Tensor", logits: "torch.Tensor", labels: "torch.Tensor"
) -> "torch.Tensor":
    """Smoothed cross-entropy plus the batch-hard triplet loss of margin 0.3."""
    import torch

    distances = torch.cdist(features, features)
    same = labels[:, None] == labels[None, :]
    positive = distances.masked_fill(~same, 0).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    identity = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    return identity + torch.relu(positive - negative + 0.3).mean()


def with_torch(job: Job) -> Steps:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    backbone = torch_resnet50().to(memory_format=torch.channels_last)
    head = torch.nn.Sequential(
        torch.nn.BatchNorm1d(2048), torch.nn.Linear(2048, IDENTITIES, bias=False)
    )
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], RATE, fused=True)
    # Images as rows of pixels, seen as (b, 3, h, w): this is what torch calls channels last.
    images = torch.from_numpy(job.images()).permute(0, 3, 1, 2)
    labels = torch.from_numpy(job.labels().astype(np.int64))
    mean = torch.tensor([123.68, 116.779, 103.939])[:, None, None]

    def step() -> float:
        features = backbone(images - mean)
        loss = torch_loss(features, head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return timed(step)


def serve(orders: Connection, contestant: Contestant, job: Job) -> None:
    """A contestant's process: for each number received, the times of that many steps."""
    steps = contestant(job)
    steps(WARM)
    orders.send("warm")
    while count := orders.recv():
        orders.send(steps(count))


def compare(contestants: dict[str, Contestant], job: Job, rounds: int, steps: int) -> None:
    """Print the median step of each and its speed relative to the first, the peer."""
    os.environ.update(KEEP_MEMORY)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    for name, contestant in contestants.items():
        pipes[name], other_end = context.Pipe()
        context.Process(target=serve, args=(other_end, contestant, job), daemon=True).start()
        other_end.close()
        pipes[name].recv()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(steps)
            times[name] += pipe.recv()
    for pipe in pipes.values():
        pipe.send(0)
    peer = statistics.median(next(iter(times.values())))
    print(f"{job.backbone}, {job.height}×{job.width}, batch {job.batch}, {rounds}×{steps} steps")
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {name:20} {1000 * middle:8.1f} ms/step  {job.batch / middle:6.1f} images/s"
            f"  {peer / middle:5.3f} × the peer's speed"
            f"  (from {1000 * min(values):.1f} to {1000 * max(values):.1f} ms)"
        )


SMALL = {
    "backbone": "mobilenetv2",
    "batch": 32,
    "height": 128,
    "width": 64,
    "rounds": 8,
    "steps": 8,
}
LARGE = {"backbone": "resnet50", "batch": 32, "height": 256, "width": 128, "rounds": 3, "steps": 2}
FIT = {"ReidModel.fit": with_fit}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
COMPARISONS: dict[str, tuple[dict[str, Contestant], dict[str, Any], str]] = {
    "torch": ({"torch": with_torch} | FIT, LARGE, "at least 1.00"),
    "fit": ({"bare step": with_bare_step} | FIT, SMALL, "at least 0.97"),
    "batch_norm": ({"Keras's layers": with_keras_batch_norm} | FIT, SMALL, "above 1"),
    "precision": (
        {name: partial(with_precision, name) for name in PRECISIONS},
        SMALL | {"rounds": 3, "steps": 3},
        "none: depends on the processor",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS
    )
    for name in COMPARISONS:
        parser.add_argument(f"--compare_{name}", action="store_true", default=False)
    parser.add_argument("--backbone", help="of keras_reid; torch is compared on resnet50 only")
    for name in ("batch", "height", "width", "rounds", "steps"):
        parser.add_argument(f"--{name}", type=int)
    flags = vars(parser.parse_args())
    chosen = [name for name in COMPARISONS if flags.pop(f"compare_{name}")] or ["torch", "fit"]
    for name in chosen:
        contestants, usual, goal = COMPARISONS[name]
        settings = usual | flags | ({"backbone": "resnet50"} if name == "torch" else {})
        rounds, steps = settings.pop("rounds"), settings.pop("steps")
        compare(contestants, Job(**settings), rounds, steps)
        print(f"  goal: {goal}")


if __name__ == "__main__":
    main()
