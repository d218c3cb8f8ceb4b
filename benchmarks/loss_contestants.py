"""One side of `benchmarks/losses.py`: a process that computes losses and gradients on request.

    python benchmarks/loss_contestants.py SIDE

runs in the environment of that side, `tensorflow` (keras_reid and the floor), `torch` or `addons`,
and needs nothing else but NumPy. For each line of JSON that it reads, `[contestant, batch,
seconds]`, it prints the seconds of each step, or the reason why the contestant is missing. It waits
in a blocking read.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# Imported where they are used: no process loads both.
if TYPE_CHECKING:
    import torch

FLOOR = "floor"
COMPILED = ", compiled"  # by XLA or torch.compile
INSTANCES = 4
SLOW = 1.0  # seconds; such a step is taken once in a turn
LEAST = 3  # steps in a turn


@dataclass(frozen=True)
class Batch:
    """Embeddings `(rows, width)`, four images of each identity.

    Independent normal ones, or near: images of one identity at 5 % of their norm from each other.
    """

    rows: int
    width: int
    near: bool

    def labels(self) -> np.ndarray:
        return np.arange(self.rows, dtype=np.int32) // INSTANCES

    def embeddings(self) -> np.ndarray:
        random = np.random.default_rng(0)
        shape = (self.rows, self.width)
        if not self.near:
            return random.standard_normal(shape, np.float32)
        centers = random.standard_normal(shape, np.float32)[self.labels()]
        # The difference of two deviations has √2 of their norm.
        return centers + 0.05 / 2**0.5 * random.standard_normal(shape, np.float32)


Step = Callable[[], object]
Loss = Callable[[Any, Any], Any]  # labels, embeddings → scalar


def tensorflow_step(name: str, batch: Batch, loss_of: Callable[[str], Loss]) -> Step:
    """The loss and its gradient in a `tf.function`; labels and embeddings are arguments."""
    import tensorflow as tf

    function = tensorflow_function(name, loss_of)
    labels, embeddings = tf.constant(batch.labels()), tf.constant(batch.embeddings())

    def step() -> object:
        return function(labels, embeddings)[0].numpy()

    return step


@functools.cache
def tensorflow_function(name: str, loss_of: Callable[[str], Loss]) -> Callable[..., Any]:
    import tensorflow as tf

    def floor(labels: Any, x: Any) -> Any:
        """One product forward and two backward, which a plain Gram matrix takes."""
        gram = tf.matmul(x, x, transpose_b=True)
        return gram[0, 0], tf.matmul(gram, x), tf.matmul(gram, x, transpose_a=True)

    def loss_and_gradient(labels: Any, x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    plain = name.removesuffix(COMPILED)
    loss = None if plain == FLOOR else loss_of(plain)
    function = floor if loss is None else loss_and_gradient
    return tf.function(function, jit_compile=name.endswith(COMPILED))


def ours(name: str) -> Loss:
    from keras_reid import losses

    return losses.METRIC_LOSSES[name]()


def addons(name: str) -> Loss:
    import tensorflow_addons as tfa

    return getattr(tfa.losses, name)()


def torch_step(name: str, batch: Batch) -> Step:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    loss = torch_loss(name)
    labels = torch.from_numpy(batch.labels().astype(np.int64))
    embeddings = torch.from_numpy(batch.embeddings()).requires_grad_()

    def step() -> object:
        value = loss(labels, embeddings)
        # Hands the gradient over instead of adding it to `embeddings.grad`.
        return torch.autograd.grad(value, embeddings), value.item()

    return step


@functools.cache
def torch_loss(name: str) -> Loss:
    import torch

    plain = name.removesuffix(COMPILED)
    loss = hard_triplets if plain == "hard_triplets" else metric_learning(plain)
    return torch.compile(loss, dynamic=False) if name.endswith(COMPILED) else loss


def hard_triplets(labels: "torch.Tensor", x: "torch.Tensor") -> "torch.Tensor":
    """Batch-hard triplets as in fast-reid: expanded distances, masks, a ranking loss."""
    import torch

    squares = (x * x).sum(dim=1, keepdim=True)
    squared = torch.addmm(squares + squares.T, x, x.T, alpha=-2)
    distances = squared.clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    positive = distances.masked_fill(~same, 0).max(dim=1).values
    negative = distances.masked_fill(same, torch.inf).min(dim=1).values
    # [−(negative − positive) + margin]₊
    ranked = torch.ones_like(positive)
    return torch.nn.functional.margin_ranking_loss(negative, positive, ranked, margin=0.3)


def metric_learning(name: str) -> Loss:
    """Return a loss of PyTorch Metric Learning; batch-hard does not normalize, as in keras_reid."""
    from pytorch_metric_learning import distances, losses, miners

    if name != "BatchHardMiner":
        loss = getattr(losses, name)()
        return lambda labels, x: loss(x, labels)
    euclidean = distances.LpDistance(normalize_embeddings=False)
    triplets = losses.TripletMarginLoss(distance=euclidean)
    miner = miners.BatchHardMiner(distance=euclidean)
    return lambda labels, x: triplets(x, labels, miner(x, labels))


SIDES: dict[str, Callable[[str, Batch], Step]] = {
    "tensorflow": functools.partial(tensorflow_step, loss_of=ours),
    "addons": functools.partial(tensorflow_step, loss_of=addons),
    "torch": torch_step,
}


def turn(step: Step, seconds: float) -> list[float]:
    """Return the times of steps for a number of seconds, after a warm-up step."""
    times = [timed(step)]
    if times[0] > SLOW:
        return times
    end = time.perf_counter() + seconds
    times.clear()
    while len(times) < LEAST or time.perf_counter() < end:
        times.append(timed(step))
    return times


def timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(side: str) -> None:
    """Answer each line of stdin; redirect the output of libraries to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    @functools.cache
    def prepared(name: str, batch: Batch) -> Step:
        step = SIDES[side](name, batch)
        step()  # traces and compiles
        return step

    for line in sys.stdin:
        name, batch, seconds = json.loads(line)
        try:
            answer: Any = turn(prepared(name, Batch(*batch)), seconds)
        except Exception as error:  # a peer may be missing, or refuse to be compiled
            answer = f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
