"""What it costs to learn from each other: imitation losses, and steps of several members.

    python benchmarks/mutual.py
    python benchmarks/mutual.py --skip_steps --rounds=10

Losses: a loss and its gradient for the student, at 128 images with 2048 features or 500 logits, in
a `tf.function` without and with XLA, against the formula in torch, eagerly on all cores. DarkRank is
there the enumeration of all n! orders, indexed at once: 40,320 for a list of 8. Where a form of the
peer is a matter of taste, several are measured and the fastest is the peer. The floor are the
products that no comparison of distances can avoid: both Gram matrices and one product back to the
student. Features are *spread*, independent normal ones, or *near*, images of one identity at 5 % of
their norm from each other, where distances repeat their product in float64. The student's are the
teacher's in reverse order.

Steps: `MutualLearner.fit` of two and three MobileNetV2, each with identity and triplet loss,
imitating the logits and distances of all others, against as many steps of `Learner.fit` for one.
That step is also what the cost of a loss is a share of.

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
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from loss_contestants import COMPILED, SLOW, Batch, Loss, tensorflow_function, turn
from training import KEEP_MEMORY, RATE, Job, Steps, embedder

# TensorFlow and torch are imported where they are used: no process loads both.
if TYPE_CHECKING:
    import keras
    import torch

ROWS, WIDTH, CLASSES = 128, 2048, 500
JOB = Job("mobilenetv2", ROWS, height=128, width=64)
SECONDS = 0.2  # of a turn of a loss
STEPS = 2  # in a turn of a training
SLOW_ROUNDS = 2  # of a contestant that takes more than SLOW seconds a step

FLOOR = "floor"
PEER_GOAL = 0.5
SHARE_GOAL = 0.05
STEP_GOAL = 1.05
MILLISECONDS = {"soft ranks, list 4": 3.0, "soft ranks, list 8": 30.0}

# Name in `IMITATIONS` and arguments.
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {}),
    "distances": ("distances", {}),
    "soft ranks, list 4": ("ranks", {"list_length": 4}),
    "soft ranks, list 8": ("ranks", {"list_length": 8}),
    "hard ranks, list 4": ("ranks", {"list_length": 4, "mode": "hard"}),
}
# What the mutual learners imitate: the weights of AlignedReID.
WEIGHTS = {"logits": 0.01, "distances": 0.001}


def outputs(loss: str, near: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of the teacher and of the student."""
    width = CLASSES if loss == "logits" else WIDTH
    teacher = Batch(ROWS, width, near).embeddings()
    return teacher, teacher[::-1].copy()


def ours(loss: str) -> Loss:
    from keras_reid.losses import IMITATIONS

    imitation, arguments = LOSSES[loss]
    return IMITATIONS[imitation](**arguments)


def with_tensorflow(name: str, near: bool) -> Callable[[float], list[float]]:
    import tensorflow as tf

    def products(teacher: Any, student: Any) -> Any:
        other = tf.matmul(teacher, teacher, transpose_b=True)
        gram = tf.matmul(student, student, transpose_b=True)
        return gram[0, 0], tf.matmul(gram - other, student)

    if name.removesuffix(COMPILED) == FLOOR:
        function: Any = tf.function(products, jit_compile=name.endswith(COMPILED))
    else:
        function = tensorflow_function(name, ours)
    teacher, student = map(tf.constant, outputs(name.removesuffix(COMPILED), near))
    return functools.partial(turn, lambda: function(teacher, student)[0].numpy())


def with_torch(name: str, near: bool) -> Callable[[float], list[float]]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    loss, form = next((loss, forms[name]) for loss, forms in PEERS.items() if name in forms)
    imitation = form()
    teacher, student = map(torch.from_numpy, outputs(loss, near))
    student.requires_grad_()

    def step() -> object:
        value = imitation(teacher, student)
        # Hands the gradient over instead of adding it to `student.grad`.
        return torch.autograd.grad(value, student), value.item()

    return functools.partial(turn, step)


def torch_logits(log_target: bool) -> Loss:
    from torch.nn import functional

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        target = functional.log_softmax if log_target else functional.softmax
        return functional.kl_div(
            functional.log_softmax(student, dim=1),
            target(teacher, dim=1),
            reduction="batchmean",
            log_target=log_target,
        )

    return loss


def torch_cdist(x: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.cdist(x, x)


def torch_expanded(x: "torch.Tensor") -> "torch.Tensor":
    """Distances by the Gram expansion, as re-identification code has them."""
    import torch

    squares = (x * x).sum(dim=1, keepdim=True)
    return torch.addmm(squares + squares.T, x, x.T, alpha=-2).clamp(min=1e-12).sqrt()


def torch_distances(pairwise: Callable[..., Any]) -> Loss:
    from torch.nn.functional import mse_loss

    return lambda teacher, student: mse_loss(pairwise(student), pairwise(teacher))


def torch_scores(
    teacher: "torch.Tensor", student: "torch.Tensor", length: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """`−3 · d³` of the teacher's nearest others `(b, length)` for either, nearest first."""
    import torch
    from torch.nn.functional import normalize

    of_teacher, of_student = torch_expanded(normalize(teacher)), torch_expanded(normalize(student))
    nearest, others = of_teacher.fill_diagonal_(torch.inf).topk(length, largest=False)
    return -3 * nearest**3, -3 * of_student.gather(1, others) ** 3


def torch_soft_ranks(length: int, stable: bool) -> Loss:
    """`Σ_π P_t(π) · (log P_t(π) − log P_s(π))` over all orders."""
    import torch

    orders = torch.tensor(list(itertools.permutations(range(length))))

    def log_probabilities(scores: "torch.Tensor") -> "torch.Tensor":
        # Every order is there backwards too, so sums of what is left may run forwards. The scores
        # lie in [−24, 0] and can be summed as exponentials, which is faster.
        ordered = scores[:, orders]
        left = ordered.logcumsumexp(dim=2) if stable else ordered.exp().cumsum(dim=2).log()
        return (ordered - left).sum(dim=2)

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        t, s = map(log_probabilities, torch_scores(teacher, student, length))
        return (t.exp() * (t - s)).sum(dim=1).mean()

    return loss


def torch_hard_ranks(length: int) -> Loss:
    """`−log P_s` of the teacher's own order."""

    def loss(teacher: "torch.Tensor", student: "torch.Tensor") -> "torch.Tensor":
        _, scores = torch_scores(teacher, student, length)
        return (scores.flip(1).logcumsumexp(dim=1).flip(1) - scores).sum(dim=1).mean()

    return loss


# The forms of each loss in torch. Cumulative logsumexp over 40,320 orders takes twice as long as
# the exponentials do and is left out.
PEERS: dict[str, dict[str, Callable[[], Loss]]] = {
    "logits": {
        "KL, logs": functools.partial(torch_logits, log_target=True),
        "KL, probabilities": functools.partial(torch_logits, log_target=False),
    },
    "distances": {
        "cdist": functools.partial(torch_distances, torch_cdist),
        "expanded": functools.partial(torch_distances, torch_expanded),
    },
    "soft ranks, list 4": {
        "24 orders, logcumsumexp": functools.partial(torch_soft_ranks, 4, stable=True),
        "24 orders": functools.partial(torch_soft_ranks, 4, stable=False),
    },
    "soft ranks, list 8": {"40,320 orders": functools.partial(torch_soft_ranks, 8, stable=False)},
    "hard ranks, list 4": {"one order": functools.partial(torch_hard_ranks, 4)},
}


def fitted(learner: "keras.Model") -> Steps:
    """Steps of `fit`, with the iterator, the metrics and the callbacks around them."""
    import keras
    import tensorflow as tf

    learner.compile(optimizer=keras.optimizers.Adam(RATE))
    batch = (JOB.images(), {"identity": JOB.labels()})
    batches = tf.data.Dataset.from_tensors(batch).repeat()

    def steps(count: int) -> list[float]:
        stamps: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: stamps or stamps.append(time.perf_counter()),
            on_train_batch_end=lambda batch, logs: stamps.append(time.perf_counter()),
        )
        learner.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0, callbacks=[clock])
        return np.diff(stamps).tolist()

    return steps


def with_members(count: int, update: str = "simultaneous") -> Steps:
    """Steps of so many members that learn from each other; of one, `Learner`'s."""
    from keras_reid import losses, training

    objective = training.Objective(
        training.Term("identity", losses.IdentityLoss(), "logits"),
        training.Term("triplet", losses.TripletHardLoss(), "features"),
    )
    members = [embedder(JOB) for _ in range(count)]
    if count == 1:
        return fitted(training.Learner(*members, objective))
    imitation = training.Objective(
        *(training.imitate(ours(loss), weight) for loss, weight in WEIGHTS.items())
    )
    return fitted(training.MutualLearner(members, objective, imitation, update=update))


@dataclass(frozen=True)
class Contestant:
    """What `prepare(*arguments)` makes takes turns in the process of that name."""

    process: str
    prepare: Callable[..., Callable[[Any], list[float]]]
    arguments: tuple[Any, ...]


Times = dict[str, list[float]]  # seconds of each step by the contestant's name
PASSIVE = ", passive threads"  # asleep while they wait: faster for torch where others run


def loss_contestants(near: bool) -> dict[str, Contestant]:
    """In an order that alternates the sides."""
    found = {}
    for loss in (FLOOR, *LOSSES):
        for name in (loss, loss + COMPILED):
            found[name] = Contestant("tensorflow", with_tensorflow, (name, near))
        for peer in PEERS.get(loss, {}):
            for policy in ("", PASSIVE):
                found[peer + policy] = Contestant("torch" + policy, with_torch, (peer, near))
    return found


def step_contestants() -> dict[str, Contestant]:
    counts: dict[str, tuple[Any, ...]] = {
        "Learner": (1,),
        "2 members": (2,),
        "3 members": (3,),
        "2 members, sequential": (2, "sequential"),
        "3 members, sequential": (3, "sequential"),
    }
    return {name: Contestant(name, with_members, given) for name, given in counts.items()}


def serve(orders: Connection) -> None:
    """A process: for each contestant and length of a turn received, the times of its steps."""

    @functools.cache
    def prepared(contestant: Contestant) -> Callable[[Any], list[float]]:
        steps = contestant.prepare(*contestant.arguments)
        steps(amount)  # traces and compiles
        return steps

    while order := orders.recv():
        contestant, amount = order
        orders.send(prepared(contestant)(amount))


def started(process: str) -> Connection:
    """Where to send orders to a new process."""
    os.environ.pop("OMP_WAIT_POLICY", None)
    if process.endswith(PASSIVE):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    context = multiprocessing.get_context("spawn")
    orders, other_end = context.Pipe()
    context.Process(target=serve, args=(other_end,), daemon=True).start()
    other_end.close()
    return orders


def alternate(contestants: dict[str, Contestant], rounds: int, amount: float) -> Times:
    """The times of all contestants; a slow loss soon retires."""
    processes = {each.process for each in contestants.values()}
    orders = {process: started(process) for process in processes}
    times: Times = {name: [] for name in contestants}
    for number, (name, contestant) in itertools.product(range(rounds), contestants.items()):
        slow = contestant.prepare is with_torch and number and min(times[name]) > SLOW
        if not slow or number < SLOW_ROUNDS:
            orders[contestant.process].send((contestant, amount))
            times[name] += orders[contestant.process].recv()
    for connection in orders.values():
        connection.send(None)
    return times


def medians(times: Times) -> dict[str, float]:
    """In milliseconds."""
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def goal(what: str, value: float, most: float) -> None:
    print(f"- {what}: {value:.3g}, {'met' if value <= most else 'MISSED'} (at most {most:g})")


def report_losses(ms: dict[str, float], kind: str) -> None:
    """A table of the losses, one of the peers, and the goals."""
    floor = min(ms[FLOOR], ms[FLOOR + COMPILED])
    print(f"\n### {ROWS} images, {kind} features\n")
    print(f"Floor {ms[FLOOR]:.2f} ms, with XLA {ms[FLOOR + COMPILED]:.2f} ms.\n")
    print("| imitation | ms | × floor | × torch | XLA, ms | × floor | × torch | torch, ms |")
    print("| --- |" + " --- |" * 7)
    peer = {
        loss: min(ms[name + how] for name in forms for how in ("", PASSIVE))
        for loss, forms in PEERS.items()
    }
    for loss in LOSSES:
        # Logits are compared one by one, without a product.
        cells = [
            f"{ms[name]:.2f} | {'' if loss == 'logits' else f'{ms[name] / floor:.2f}'} "
            f"| {ms[name] / peer[loss]:.2f}"
            for name in (loss, loss + COMPILED)
        ]
        print(f"| {loss} | {' | '.join(cells)} | {peer[loss]:.2f} |")
    print("\n| in torch | ms | passive threads, ms |\n| --- | --- | --- |")
    for name in itertools.chain.from_iterable(PEERS.values()):
        print(f"| {name} | {ms[name]:.2f} | {ms[name + PASSIVE]:.2f} |")
    print()
    for loss, how in itertools.product(LOSSES, ("", COMPILED)):
        goal(f"{loss}{how}, × torch", ms[loss + how] / peer[loss], PEER_GOAL)
        if loss in MILLISECONDS:
            goal(f"{loss}{how}, ms", ms[loss + how], MILLISECONDS[loss])


def report_shares(losses: dict[str, float], step: float, kind: str) -> None:
    for loss in LOSSES:
        goal(f"{loss}, {kind}, share of a step", losses[loss] / step, SHARE_GOAL)


def report_steps(times: Times) -> None:
    ms = medians(times)
    print(f"\n### Steps of {JOB.backbone}, {JOB.batch} images of {JOB.height}×{JOB.width}\n")
    print("| steps of | ms | from | to | × steps alone |\n| --- |" + " --- |" * 4)
    ratios = {}
    for name, contestant in step_contestants().items():
        ratios[name] = ms[name] / (contestant.arguments[0] * ms["Learner"])
        extremes = f"{1000 * min(times[name]):.0f} | {1000 * max(times[name]):.0f}"
        print(f"| {name} | {ms[name]:.0f} | {extremes} | {ratios[name]:.3f} |")
    print()
    for name in ("2 members", "3 members"):
        goal(f"{name}, × steps alone", ratios[name], STEP_GOAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip_losses", action="store_true")
    parser.add_argument("--skip_steps", action="store_true")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each contestant")
    flags = parser.parse_args()
    os.environ.update(KEEP_MEMORY)
    losses = {}
    for kind in () if flags.skip_losses else ("spread", "near"):
        contestants = loss_contestants(kind == "near")
        losses[kind] = medians(alternate(contestants, flags.rounds, SECONDS))
        report_losses(losses[kind], kind)
    if flags.skip_steps:
        return
    times = alternate(step_contestants(), flags.rounds, STEPS)
    report_steps(times)
    for kind, ms in losses.items():
        report_shares(ms, medians(times)["Learner"], kind)


if __name__ == "__main__":
    main()
