"""Cost of mutual learning: distillation losses, and steps of several members.

    python benchmarks/mutual.py
    python benchmarks/mutual.py --skip_steps --rounds=10

Losses: a loss and its gradient for the student, at 128 images with 2048 features or 500 logits, in
a `tf.function` without and with XLA. The peer is the formula in eager torch on all cores; DarkRank
enumerates all n! orders there, 40,320 for a list of 8. The floor are the products that every
comparison of distances needs: both Gram matrices and one product back to the student. An empty call
of a `tf.function` is measured too, since all but torch take that much more here than inside of a
training step. Features are *spread*, independent normal ones, or *near*, images of one identity at
5 % of their norm from each other, where distances repeat their product in float64. The student's
are the teacher's in reverse order.

Steps: `MutualLearner.fit` of two and three MobileNetV2, each with identity and triplet loss,
distilling the logits and distances of all others, against as many steps of `ReidModel.fit` for one.
The cost of a loss is a fraction of such a step of 128 images. All five trainings stay in memory,
some 13 GB for steps of 64 images.

All contestants take turns in one run, the medians are compared. TensorFlow and torch have processes
of their own, and so has each training; they sleep in a read from a pipe while others have their
turn. An allocator that keeps freed memory (`KEEP_MEMORY` in training.py) serves both sides.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from loss_contestants import COMPILED, SLOW, Batch, Loss, tensorflow_function, turn
from training import KEEP_MEMORY, Job, embedder, fitted

# TensorFlow and torch are imported where they are used: no process loads both.
if TYPE_CHECKING:
    import torch

ROWS, WIDTH, CLASSES = 128, 2048, 500
SECONDS = 0.2  # of a turn of a loss
STEPS = 2  # in a turn of a training
SLOW_ROUNDS = 2  # of a loss that takes more than SLOW seconds a step

FLOOR = "floor"
CALL = "empty call"
PEER_GOAL = 0.5
SHARE_GOAL = 0.05
STEP_GOAL = 1.05
MILLISECONDS = {"soft ranks, list 4": 3.0, "soft ranks, list 8": 30.0}

# Name in `DISTILLATION_LOSSES` and arguments.
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {}),
    "distances": ("distances", {}),
    "soft ranks, list 4": ("ranks", {"list_length": 4}),
    "soft ranks, list 8": ("ranks", {"list_length": 8}),
    "hard ranks, list 4": ("ranks", {"list_length": 4, "mode": "hard"}),
}
# Weights of the distillation by output, as in AlignedReID.
WEIGHTS = {"logits": 0.01, "features": 0.001}

Turn = Callable[[Any], list[float]]  # of that length: the seconds of each step


def outputs(loss: str, near: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs of the teacher and of the student."""
    teacher = Batch(ROWS, CLASSES if loss == "logits" else WIDTH, near).embeddings()
    return teacher, teacher[::-1].copy()


def ours(loss: str) -> Loss:
    from keras_reid.losses import DISTILLATION_LOSSES

    distillation, arguments = LOSSES[loss]
    return DISTILLATION_LOSSES[distillation](**arguments)


def with_tensorflow(name: str, near: bool) -> Turn:
    import tensorflow as tf

    def products(teacher: Any, student: Any) -> Any:
        of_student = tf.matmul(student, student, transpose_b=True)
        difference = of_student - tf.matmul(teacher, teacher, transpose_b=True)
        return difference[0, 0], tf.matmul(difference, student)

    plain = name.removesuffix(COMPILED)
    bare: dict[str, Any] = {CALL: lambda teacher, student: [student[0, 0]], FLOOR: products}
    if plain in bare:
        function = tf.function(bare[plain], jit_compile=name.endswith(COMPILED))
    else:
        function = tensorflow_function(name, ours)
    teacher, student = map(tf.constant, outputs(plain, near))

    def step() -> object:
        return function(teacher, student)[0].numpy()

    return functools.partial(turn, step)


def with_torch(loss: str, near: bool) -> Turn:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    distillation = PEERS[loss]()
    teacher, student = map(torch.from_numpy, outputs(loss, near))
    student.requires_grad_()

    def step() -> object:
        value = distillation(teacher, student)
        # Hands the gradient over instead of adding it to `student.grad`.
        return torch.autograd.grad(value, student), value.item()

    return functools.partial(turn, step)


def torch_logits() -> Loss:
    from torch.nn.functional import kl_div, log_softmax

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        s, t = log_softmax(student, dim=1), log_softmax(teacher, dim=1)
        return kl_div(s, t, reduction="batchmean", log_target=True)

    return loss


def torch_distances() -> Loss:
    """Return the loss with `cdist`; the Gram expansion takes the same time."""
    from torch import cdist
    from torch.nn.functional import mse_loss

    return lambda teacher, student: mse_loss(cdist(student, student), cdist(teacher, teacher))


def torch_scores(
    teacher: "torch.Tensor", student: "torch.Tensor", length: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """`−3 · d³` of the teacher's nearest others `(b, length)` for either, nearest first."""
    import torch
    from torch.nn.functional import normalize

    of_teacher, of_student = (torch.cdist(x, x) for x in map(normalize, (teacher, student)))
    nearest, others = of_teacher.fill_diagonal_(torch.inf).topk(length, largest=False)
    return -3 * nearest**3, -3 * of_student.gather(1, others) ** 3


def torch_soft_ranks(length: int) -> Loss:
    """`Σ_π P_t(π) · (log P_t(π) − log P_s(π))` over all orders."""
    import torch

    orders = torch.tensor(list(itertools.permutations(range(length))))

    def log_probabilities(scores: "torch.Tensor") -> "torch.Tensor":
        # The orders include every reversed order, so cumulative sums may run forwards. Scores are
        # in [−24, 0]: sums of their exponentials are exact enough and take half the time, or a
        # third of it, of `logcumsumexp`.
        ordered = scores[:, orders]
        return (ordered - ordered.exp().cumsum(dim=2).log()).sum(dim=2)

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        t, s = map(log_probabilities, torch_scores(teacher, student, length))
        return (t.exp() * (t - s)).sum(dim=1).mean()

    return loss


def torch_hard_ranks(length: int) -> Loss:
    """`−log P_s` of the teacher's own order."""

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        scores = torch_scores(teacher, student, length)[1].flip(1)
        return (scores.logcumsumexp(dim=1) - scores).sum(dim=1).mean()

    return loss


PEERS: dict[str, Callable[[], Loss]] = {
    "logits": torch_logits,
    "distances": torch_distances,
    "soft ranks, list 4": functools.partial(torch_soft_ranks, 4),
    "soft ranks, list 8": functools.partial(torch_soft_ranks, 8),
    "hard ranks, list 4": functools.partial(torch_hard_ranks, 4),
}


def with_members(job: Job, count: int, update: str = "simultaneous") -> Turn:
    """Return steps of members that learn from each other, or of one model alone."""
    from keras_reid import training

    members = [embedder(job) for _ in range(count)]
    if count == 1:
        return fitted(members[0], job)
    distilled = {"logits": ours("logits"), "features": ours("distances")}
    return fitted(
        training.MutualLearner(members, update=update),
        job,
        distillation_loss=distilled,
        distillation_weights=WEIGHTS,
    )


@dataclass(frozen=True)
class Contestant:
    """Turn of `prepare(*arguments)`, which runs in the process of that name."""

    process: str
    prepare: Callable[..., Turn]
    arguments: tuple[Any, ...]


Times = dict[str, list[float]]  # seconds of each step by the contestant's name
# Torch's threads spin while they wait, which is best where nothing else runs, or sleep.
TORCH, PASSIVE = "torch", "torch, passive threads"


def loss_contestants(near: bool) -> dict[str, Contestant]:
    """Return contestants in an order that alternates the sides."""
    found = {}
    for loss in (CALL, FLOOR, *LOSSES):
        for name in (loss, loss + COMPILED):
            found[name] = Contestant("tensorflow", with_tensorflow, (name, near))
        for process in (TORCH, PASSIVE) if loss in PEERS else ():
            found[f"{loss}, {process}"] = Contestant(process, with_torch, (loss, near))
    return found


def step_contestants(batch: int) -> dict[str, Contestant]:
    job, large = (Job("mobilenetv2", size, height=128, width=64) for size in (batch, ROWS))
    arguments: dict[str, tuple[Any, ...]] = {
        alone(batch): (job, 1),
        "2 members": (job, 2),
        "3 members": (job, 3),
        "2 members, sequential": (job, 2, "sequential"),
        alone(ROWS): (large, 1),
    }
    return {name: Contestant(name, with_members, given) for name, given in arguments.items()}


def alone(batch: int) -> str:
    return f"one model, {batch} images"


def serve(orders: Connection) -> None:
    """A process: for each contestant and length of a turn received, the times of its steps."""

    @functools.cache
    def prepared(contestant: Contestant) -> Turn:
        take_turn = contestant.prepare(*contestant.arguments)
        take_turn(length)  # traces and compiles
        return take_turn

    while order := orders.recv():
        contestant, length = order
        orders.send(prepared(contestant)(length))


def started(process: str) -> Connection:
    """Start a process and return the connection for its orders."""
    os.environ.pop("OMP_WAIT_POLICY", None)
    if process == PASSIVE:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    context = multiprocessing.get_context("spawn")
    orders, other_end = context.Pipe()
    context.Process(target=serve, args=(other_end,), daemon=True).start()
    other_end.close()
    return orders


def alternate(contestants: dict[str, Contestant], rounds: int, length: float) -> Times:
    """Return the times of all contestants; slow peers run fewer rounds."""
    processes = {each.process for each in contestants.values()}
    orders = {process: started(process) for process in processes}
    times: Times = {name: [] for name in contestants}
    for number, (name, contestant) in itertools.product(range(rounds), contestants.items()):
        if contestant.prepare is with_torch and number >= SLOW_ROUNDS and min(times[name]) > SLOW:
            continue
        orders[contestant.process].send((contestant, length))
        times[name] += orders[contestant.process].recv()
    for connection in orders.values():
        connection.send(None)
    return times


def medians(times: Times) -> dict[str, float]:
    """Return medians in milliseconds."""
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def report_losses(ms: dict[str, float], kind: str) -> None:
    floor = min(ms[FLOOR], ms[FLOOR + COMPILED])
    peers = {loss: min(ms[f"{loss}, {how}"] for how in (TORCH, PASSIVE)) for loss in PEERS}
    print(f"\n### {ROWS} images, {kind}\n")
    print("| distillation | ms | × floor | × torch | XLA, ms | × floor | × torch | torch, ms |")
    print("| --- |" + " --- |" * 7)
    for loss in (CALL, FLOOR, *LOSSES):
        peer = peers.get(loss)
        cells = [
            f"{ms[name]:.2f} | {ms[name] / floor:.2f} | {f'{ms[name] / peer:.3g}' if peer else ''}"
            for name in (loss, loss + COMPILED)
        ]
        print(f"| {loss} | {' | '.join(cells)} | {f'{peer:.2f}' if peer else ''} |")
    print()
    for loss, peer in peers.items():
        both = {"plain": ms[loss], "XLA": ms[loss + COMPILED]}
        goal(f"{loss}, × torch", PEER_GOAL, {how: value / peer for how, value in both.items()})
        if loss in MILLISECONDS:
            goal(f"{loss}, ms", MILLISECONDS[loss], both)


def report_steps(times: Times, batch: int) -> None:
    ms = medians(times)
    print(f"\n### Steps of MobileNetV2, {batch} images of 128×64\n")
    print("| steps of | ms | from | to | × steps alone |\n| --- |" + " --- |" * 4)
    ratios = {}
    for name, contestant in step_contestants(batch).items():
        job, members = contestant.arguments[:2]
        ratios[name] = ms[name] / (members * ms[alone(job.batch)])
        extremes = f"{1000 * min(times[name]):.0f} | {1000 * max(times[name]):.0f}"
        print(f"| {name} | {ms[name]:.0f} | {extremes} | {ratios[name]:.3f} |")
    print()
    goal("steps, × steps alone", STEP_GOAL, {k: ratios[k] for k in ("2 members", "3 members")})


def goal(what: str, most: float, values: dict[str, float]) -> None:
    verdicts = [f"{k} {v:.3g}, {'met' if v <= most else 'MISSED'}" for k, v in values.items()]
    print(f"- {what}, at most {most:g}: {'; '.join(verdicts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip_losses", action="store_true")
    parser.add_argument("--skip_steps", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--batch", type=int, default=64, help="images of a training step")
    flags = parser.parse_args()
    os.environ.update(KEEP_MEMORY)
    measured = {}
    for kind in () if flags.skip_losses else ("spread", "near"):
        contestants = loss_contestants(kind == "near")
        measured[kind] = medians(alternate(contestants, flags.rounds, SECONDS))
        report_losses(measured[kind], kind)
    if flags.skip_steps:
        return
    times = alternate(step_contestants(flags.batch), flags.rounds, STEPS)
    report_steps(times, flags.batch)
    step = medians(times)[alone(ROWS)]
    for kind, ms in measured.items():
        shares = {loss: ms[loss] / step for loss in LOSSES}
        goal(f"share of a step of {ROWS} images, {kind}", SHARE_GOAL, shares)


if __name__ == "__main__":
    main()
