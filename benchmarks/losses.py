"""Metric losses, forward and backward, against three matrix products and against their peers.

    python benchmarks/losses.py --peer_python=PATH --addons_python=PATH
    python benchmarks/losses.py --memory

Measured are the loss of a float32 batch `(B, D)`, four images of each identity, and its gradient
with respect to the embeddings, in memory. Two kinds of embeddings: *spread*, independent normal
ones, and *near*, images of one identity at 5 % of their norm from each other, as a trained model
has them; there the distances of keras_reid repeat their product in float64.

- The floor: `g = x·xᵀ`, `g·x` and `gᵀ·x` in TensorFlow, the faster one of with and without XLA.
- keras_reid: every loss of `METRIC_LOSSES` with its defaults in a `tf.function`, without and with
  XLA. Batch-all triplets take O(B³) memory and are left out above 256 images.
- Peers: PyTorch Metric Learning and the batch-hard triplet loss as fast-reid computes it, in torch
  (`--peer_python`), and TensorFlow Addons, which needs Python 3.11 and TensorFlow 2.15
  (`--addons_python`). What cannot be imported is named and left out.

Each side runs in a separate process, which waits in a read from a pipe while the others have
their turn. A turn starts with a warm-up step. All contestants of a size take turns, and
the medians are compared. The conditions are the best for each side:

- All cores. Torch is measured with spinning and with sleeping threads.
- An allocator that keeps freed memory (`KEEP_MEMORY` in training.py).
- Tensors that exist before the turn, and returned instead of accumulated gradients.
- Torch's batch-hard losses without normalization, as in keras_reid.
- Compiled and eager forms of a peer. The fastest one counts.

`--memory` prints the peak memory of a step above that of a small batch, for growing batches: twice
the images take four times the memory where it is O(B²), eight times where it is O(B³).
"""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from loss_contestants import COMPILED, FLOOR, SLOW, Batch
from training import KEEP_MEMORY

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_string("peer_python", sys.executable, "Has torch and pytorch-metric-learning.")
flags.DEFINE_string("addons_python", None, "Has tensorflow-addons; default: leave it out.")
flags.DEFINE_list("sizes", ["128x2048", "1024x512"], "B x D.")
flags.DEFINE_list("losses", [], "Only these, and their peers; default: all.")
flags.DEFINE_list("embeddings", ["spread", "near"], "Either or both.")
flags.DEFINE_integer("rounds", 10, "Turns of each contestant.")
flags.DEFINE_float("seconds", 0.2, "Length of a turn.")
flags.DEFINE_float("quantile", 0.5, "Of the times: the median; lower where others run.")
flags.DEFINE_bool(
    "skip_slow",
    False,
    "Without TensorFlow Addons' semi-hard loss: at 1024x512 it takes 17 s a step and some 20 GB.",
)
flags.DEFINE_bool("memory", False, "Peak memory instead of time.")

CUBIC = ("triplet",)  # O(B³) memory by definition
CUBIC_ROWS = 256
SLOW_ROUNDS = 2
MEMORY_ROWS = (512, 1024, 2048)
MEMORY_WIDTH = 16

# At most so many times the floor; `triplet`, which compares all triplets, is exempt.
FLOOR_GOALS = {("triplet_hard", 128): 1.2, ("triplet_hard", 1024): 0.8}
CONTRASTIVE_GOAL = 1.3
USUAL_GOAL = 2.0
PEER_GOAL = 0.65  # of triplet_hard, times the fastest peer

# Threads of torch that wait for others spin, which is best on an idle machine and makes it ten to a
# hundred times slower on a busy one; asleep they lose little. The faster of both is the peer.
PASSIVE = ", passive threads"

# Side, name and name in loss_contestants.py of the peers of each loss.
LEARNING = "PyTorch Metric Learning"
ADDONS = "TensorFlow Addons"
FAST_REID = "fast-reid's formula in torch"
PEERS: dict[str, dict[str, tuple[str, str]]] = {
    "triplet_hard": {
        f"{LEARNING}, batch-hard": ("torch", "BatchHardMiner"),
        FAST_REID: ("torch", "hard_triplets"),
        FAST_REID + COMPILED: ("torch", "hard_triplets" + COMPILED),
        f"{ADDONS}, batch-hard": ("addons", "TripletHardLoss"),
        f"{ADDONS}, batch-hard{COMPILED}": ("addons", "TripletHardLoss" + COMPILED),
    },
    "contrastive": {f"{LEARNING}, contrastive": ("torch", "ContrastiveLoss")},
    "circle": {f"{LEARNING}, circle": ("torch", "CircleLoss")},
    "lifted_structure": {
        f"{LEARNING}, lifted structure": ("torch", "GeneralizedLiftedStructureLoss")
    },
    "triplet": {f"{LEARNING}, all triplets": ("torch", "TripletMarginLoss")},
    "triplet_semi_hard": {f"{ADDONS}, semi-hard": ("addons", "TripletSemiHardLoss")},
}

Times = dict[str, list[float]]  # by the contestant's name


class Side:
    """Process that answers turns, or returns an error for a missing contestant."""

    def __init__(self, side: str, python: str, **environment: str) -> None:
        command = [python, str(Path(__file__).with_name("loss_contestants.py")), side]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | KEEP_MEMORY | environment,
        )

    def turn(self, contestant: str, batch: Batch) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        values = [batch.rows, batch.width, batch.near]
        print(json.dumps([contestant, values, FLAGS.seconds]), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '"its process has ended"')
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def sides() -> dict[str, Side]:
    found = {
        "tensorflow": Side("tensorflow", sys.executable),
        "torch": Side("torch", FLAGS.peer_python),
        "torch" + PASSIVE: Side("torch", FLAGS.peer_python, OMP_WAIT_POLICY="PASSIVE"),
    }
    if FLAGS.addons_python:
        found["addons"] = Side("addons", FLAGS.addons_python)
    return found


def chosen(rows: int) -> list[str]:
    from keras_reid.losses import METRIC_LOSSES

    names = FLAGS.losses or list(METRIC_LOSSES)
    return [name for name in names if name not in CUBIC or rows <= CUBIC_ROWS]


def contestants(rows: int, found: dict[str, Side]) -> dict[str, tuple[str, str]]:
    """Return side and name of all contestants, in an order that alternates the sides."""
    entries: dict[str, tuple[str, str]] = {}
    for name in (FLOOR, *chosen(rows)):
        entries |= {each: ("tensorflow", each) for each in (name, name + COMPILED)}
        entries |= peers(name)
    skipped = "TripletSemiHardLoss" if FLAGS.skip_slow else None
    return {
        name: (side, there)
        for name, (side, there) in entries.items()
        if side in found and there != skipped
    }


def peers(loss: str) -> dict[str, tuple[str, str]]:
    """Return side and name of each peer of this loss."""
    named = PEERS.get(loss, {})
    passive = {
        name + PASSIVE: (side + PASSIVE, there)
        for name, (side, there) in named.items()
        if side == "torch"
    }
    return named | passive


def measure(batch: Batch, found: dict[str, Side]) -> Times:
    """Return the times of all available contestants."""
    running = contestants(batch.rows, found)
    times: Times = {name: [] for name in running}
    for number in range(FLAGS.rounds):
        for name, (side, there) in list(running.items()):
            try:
                times[name] += found[side].turn(there, batch)
            except (RuntimeError, OSError) as error:  # OSError: its process has ended
                print(f"Left out: {name}: {error}", file=sys.stderr)
                del running[name]
                continue
            if number + 1 >= SLOW_ROUNDS and min(times[name]) > SLOW:
                del running[name]
    return {name: values for name, values in times.items() if values}


def report(batch: Batch, times: Times) -> None:
    """Print a table of the losses, a table of the peers, and the goals."""
    medians = {name: 1000 * np.quantile(all_, FLAGS.quantile) for name, all_ in times.items()}
    floor = min(medians[FLOOR], medians[FLOOR + COMPILED])
    kind = "near" if batch.near else "spread"
    print(f"\n### ({batch.rows}, {batch.width}), {kind} embeddings\n")
    print(f"Floor {medians[FLOOR]:.2f} ms, with XLA {medians[FLOOR + COMPILED]:.2f} ms.\n")
    print("| loss | ms | × floor | XLA, ms | × floor | × fastest peer | with XLA | the peer |")
    print("| --- |" + " --- |" * 7)
    for name in chosen(batch.rows):
        both = [medians[name], medians[name + COMPILED]]
        cells = [f"{ms:.2f} | {ms / floor:.2f}" for ms in both]
        peer = fastest_peer(name, medians)
        against = [f"{ms / medians[peer]:.2f}" for ms in both] if peer else ["", ""]
        print(f"| `{name}` | {' | '.join(cells + against)} | {peer or ''} |")
    print("\n| peer | ms | × floor |\n| --- | --- | --- |")
    for peer in (peer for loss in PEERS for peer in peers(loss) if peer in medians):
        print(f"| {peer} | {medians[peer]:.2f} | {medians[peer] / floor:.2f} |")
    print()
    for name in chosen(batch.rows):
        print_goals(name, batch.rows, medians, floor)


def fastest_peer(loss: str, medians: dict[str, float]) -> str | None:
    measured = [peer for peer in peers(loss) if peer in medians]
    return min(measured, key=medians.__getitem__, default=None)


def print_goals(loss: str, rows: int, medians: dict[str, float], floor: float) -> None:
    if loss not in CUBIC:
        usual = CONTRASTIVE_GOAL if loss == "contrastive" else USUAL_GOAL
        goal(loss, medians, FLOOR_GOALS.get((loss, rows), usual), floor, "the floor")
    peer = fastest_peer(loss, medians)
    if loss == "triplet_hard" and peer:
        goal(loss, medians, PEER_GOAL, medians[peer], peer)


def goal(loss: str, medians: dict[str, float], most: float, unit: float, of: str) -> None:
    verdicts = []
    for label, name in (("plain", loss), ("XLA", loss + COMPILED)):
        ratio = medians[name] / unit
        verdicts.append(f"{label} {ratio:.2f}, {'met' if ratio <= most else 'MISSED'}")
    print(f"- `{loss}` at most {most} × {of}: {'; '.join(verdicts)}.")


def added_memory(loss: str, rows: int) -> float:
    """Bytes at the peak of a step above the inputs and a process that took a small step. Linux."""
    import tensorflow as tf
    from loss_contestants import ours, tensorflow_function

    signature = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, MEMORY_WIDTH))
    step = tensorflow_function(loss, ours).get_concrete_function(*signature)
    for count in (8, rows):
        batch = Batch(count, MEMORY_WIDTH, near=True)
        inputs = tf.constant(batch.labels()), tf.constant(batch.embeddings())
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before = resident("VmRSS")
        step(*inputs)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def report_memory() -> None:
    """Each loss and size in a separate process, which has freed nothing before."""
    sizes = " | ".join(f"B = {rows}, MB" for rows in MEMORY_ROWS)
    print(f"| loss | {sizes} | growth | matrices of B² at the largest |")
    print("| --- |" + " --- |" * (len(MEMORY_ROWS) + 2))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        for loss in chosen(max(MEMORY_ROWS)):
            tasks = [(loss, rows) for rows in MEMORY_ROWS]
            peaks = pool.starmap(added_memory, tasks, chunksize=1)
            cells = [f"{peak / 2**20:.1f}" for peak in peaks]
            growth = [f"{b / a:.1f}" for a, b in itertools.pairwise(peaks)]
            matrices = peaks[-1] / (4 * MEMORY_ROWS[-1] ** 2)
            print(f"| `{loss}` | {' | '.join(cells)} | {', '.join(growth)} | {matrices:.1f} |")


def main(argv: list[str]) -> None:
    if FLAGS.memory:
        report_memory()
        return
    found = sides()
    for size in FLAGS.sizes:
        rows, width = map(int, size.split("x"))
        for kind in FLAGS.embeddings:
            batch = Batch(rows, width, kind == "near")
            report(batch, measure(batch, found))


if __name__ == "__main__":
    app.run(main)
