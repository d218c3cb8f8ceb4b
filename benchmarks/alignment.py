"""Cost of alignment: distances with their gradient, the triplet loss, and a whole test set.

    python benchmarks/alignment.py
    python benchmarks/alignment.py --rounds=15 --images=128 --stripes=8 --width=128

Three tables of medians in ms and their ratios; all contestants take turns in one run, each with all
cores.

- distances: all pairs of a batch, value and gradient. Peers: the formulation of the public
  reproductions in torch (one Gram product of all stripes, (e^x − 1)/(e^x + 1), a minimum for each
  cell, autodiff) and the same recurrence differentiated by TensorFlow. The floor are the cells
  alone: all tanh(|f − g|/2) of all pairs of stripes and their gradient by autodiff, three products.
- loss: `AlignedTripletLoss` and `TripletHardLoss` of global features, value and gradient,
  against the torch formulation, which aligns all pairs to pick 2b of them.
- test set: distances of queries to a gallery, without gradient, by `keras_reid.evaluation.matrix`
  in blocks, against torch and NumPy, which hold all cells at once; and the memory that it takes.
"""

import argparse
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import torch

from keras_reid import distances, evaluation, losses

FLOOR_GOAL, TORCH_GOAL, TEST_GOAL = 1.3, 0.35, 0.2
IDENTITY = 4  # images of each in a batch
MARGIN = 0.3


def milliseconds(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each function, called in turns, after two warm-up calls."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, times: dict[str, float], peers: list[str]) -> None:
    print(f"\n| {title} | ms | {' | '.join(f'of {peer}' for peer in peers)} |")
    print("| --- |" + " --- |" * (len(peers) + 1))
    for name, value in times.items():
        ratios = " | ".join(f"{value / times[peer]:.2f}" for peer in peers)
        print(f"| {name} | {value:.1f} | {ratios} |")


# --- Peers


def unrolled(cells: Any, smaller: Callable[[Any, Any], Any]) -> Any:
    """Return the recurrence over cells `[i, j]` of planes, for automatic differentiation."""
    total: dict[tuple[int, int], Any] = {}
    for i, j in np.ndindex(*cells.shape[:2]):
        before = [total[cell] for cell in ((i - 1, j), (i, j - 1)) if cell in total]
        best = smaller(*before) if len(before) == 2 else sum(before)
        total[i, j] = best + cells[i, j]
    return total[i, j]


def torch_aligned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    a, b = x.reshape(-1, x.shape[2]), y.reshape(-1, y.shape[2])
    squared = (a * a).sum(1, keepdim=True) + (b * b).sum(1) - 2 * a @ b.t()
    power = torch.exp(squared.clamp(min=1e-12).sqrt())
    cells = ((power - 1) / (power + 1)).reshape(*x.shape[:2], *y.shape[:2]).permute(1, 3, 0, 2)
    return unrolled(cells, torch.minimum)


def torch_loss(features: torch.Tensor, local: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    apart = torch.cdist(features, features)
    aligned = torch_aligned(local, local)
    same = labels[:, None] == labels
    total = torch.zeros(())
    positive = torch.where(same, apart, -1.0).argmax(1, keepdim=True)
    negative = torch.where(same, torch.inf, apart).argmin(1, keepdim=True)
    for matrix in (apart, aligned):
        excess = matrix.gather(1, positive) - matrix.gather(1, negative)
        total = total + torch.relu(excess + MARGIN).mean()
    return total


def torch_step(function: Callable[..., torch.Tensor], *arrays: np.ndarray) -> Callable[[], object]:
    def step() -> object:
        inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
        return torch.autograd.grad(function(*inputs), inputs)

    return step


def numpy_aligned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = x.reshape(-1, x.shape[2]), y.reshape(-1, y.shape[2])
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    cells = np.tanh(np.sqrt(np.maximum(squared, 0)) / 2)
    return unrolled(cells.reshape(*x.shape[:2], *y.shape[:2]).transpose(1, 3, 0, 2), np.minimum)


def tensorflow_cells(x: tf.Tensor) -> tf.Tensor:
    """`tanh(|f − g|/2)` of all stripes, `(s · n, s · n)`."""
    a = tf.reshape(tf.transpose(x, (1, 0, 2)), (-1, x.shape[2]))
    length = tf.reduce_sum(a * a, axis=1)
    squared = length[:, None] + length - 2 * tf.matmul(a, a, transpose_b=True)
    return tf.tanh(tf.sqrt(tf.maximum(squared, 1e-12)) / 2)


def tensorflow_aligned(x: tf.Tensor) -> tf.Tensor:
    n, s = x.shape[:2]
    cells = tf.transpose(tf.reshape(tensorflow_cells(x), (s, n, s, n)), (0, 2, 1, 3))
    return unrolled(cells, tf.minimum)


def tensorflow_step(
    function: Callable[..., tf.Tensor], *arrays: np.ndarray, jit_compile: bool = False
) -> Callable[[], object]:
    inputs = [tf.constant(array) for array in arrays]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def gradients(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(*inputs)
        return tape.gradient(value, inputs)

    return lambda: [gradient.numpy() for gradient in gradients(*inputs)]


# --- Tables


def compare_distances(x: np.ndarray, rounds: int) -> None:
    n, s = x.shape[:2]
    random = np.random.default_rng(1)
    weights = random.normal(size=(n, n)).astype("float32")
    of_cells = random.normal(size=(n * s, n * s)).astype("float32")
    of_torch = torch.tensor(weights)

    def ours(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(weights * distances.aligned(x))

    def theirs(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(weights * tensorflow_aligned(x))

    def floor(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(of_cells * tensorflow_cells(x))

    contestants = {
        "floor": tensorflow_step(floor, x),
        "floor, XLA": tensorflow_step(floor, x, jit_compile=True),
        "torch": torch_step(lambda x: (of_torch * torch_aligned(x, x)).sum(), x),
        "TensorFlow, autodiff": tensorflow_step(theirs, x),
        "TensorFlow, autodiff, XLA": tensorflow_step(theirs, x, jit_compile=True),
        "aligned": tensorflow_step(ours, x),
        "aligned, XLA": tensorflow_step(ours, x, jit_compile=True),
    }
    times = milliseconds(contestants, rounds)
    table("distances and gradient", times, ["floor", "torch"])
    best = min(times["aligned"], times["aligned, XLA"])
    floor_time = min(times["floor"], times["floor, XLA"])
    print(f"best / best floor {best / floor_time:.2f}, goal {FLOOR_GOAL}")
    print(f"best / torch {best / times['torch']:.2f}, goal {TORCH_GOAL}")


def compare_losses(local: np.ndarray, rounds: int) -> None:
    n = len(local)
    features = np.random.default_rng(2).normal(size=(n, 2048)).astype("float32")
    labels = np.arange(n) // IDENTITY
    both = losses.TripletHardLoss(MARGIN), losses.AlignedTripletLoss(MARGIN)

    def ours(features: tf.Tensor, local: tf.Tensor) -> tf.Tensor:
        return both[0](labels, features) + both[1](labels, (features, local))

    of_torch = torch.tensor(labels)
    contestants = {
        "torch": torch_step(lambda f, x: torch_loss(f, x, of_torch), features, local),
        "losses": tensorflow_step(ours, features, local),
        "losses, XLA": tensorflow_step(ours, features, local, jit_compile=True),
    }
    table("global and local triplet loss", milliseconds(contestants, rounds), ["torch"])


def compare_test_sets(query: np.ndarray, gallery: np.ndarray, rounds: int) -> None:
    of_torch = torch.tensor(query), torch.tensor(gallery)
    expected = evaluation.matrix(query, gallery, "local")
    np.testing.assert_allclose(torch_aligned(*of_torch), expected, atol=1e-4)
    contestants = {
        "torch": lambda: torch_aligned(*of_torch),
        "NumPy": lambda: numpy_aligned(query, gallery),
        "matrix": lambda: evaluation.matrix(query, gallery, "local"),
    }
    with torch.no_grad():
        times = milliseconds(contestants, rounds)
    table(f"{len(query)} × {len(gallery)} images", times, ["torch", "NumPy"])
    print(f"matrix / torch {times['matrix'] / times['torch']:.2f}, goal {TEST_GOAL}")
    tracemalloc.start()
    evaluation.matrix(query, gallery, "local")
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    cells = 4 * len(query) * len(gallery) * query.shape[1] * gallery.shape[1] / 2**20
    result = expected.nbytes / 2**20
    print(f"memory in NumPy {peak:.0f} MiB, {result:.0f} of it the result; all cells {cells:.0f}")


def unit(random: np.random.Generator, *shape: int) -> np.ndarray:
    x = random.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128, help="Of a batch.")
    parser.add_argument("--stripes", type=int, default=8)
    parser.add_argument("--width", type=int, default=128, help="Of a local feature.")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--gallery", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"TensorFlow {tf.__version__}, torch {torch.__version__}, {os.cpu_count()} cores")
    random = np.random.default_rng(0)
    size = options.stripes, options.width
    batch = 2 * unit(random, options.images, *size)
    compare_distances(batch, options.rounds)
    compare_losses(batch, options.rounds)
    query, gallery = unit(random, options.queries, *size), unit(random, options.gallery, *size)
    compare_test_sets(query, gallery, max(3, options.rounds // 3))


if __name__ == "__main__":
    main()
