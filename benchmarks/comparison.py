"""Train and evaluate the rows of the tables in docs/results.md.

    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2 --table=losses
    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2 \\
        --table=methods --keypoints=K.csv --attributes=A.csv --seeds=0,1

Trains every row of a table by `train.py` once for each seed. Evaluates it by `evaluate.py` and
prints a Markdown table of rank-1 and mAP, with the minutes of training. The data set is in the
layout of Market-1501. Finished rows are not trained again, so the same command resumes after an
interruption. `--row` selects rows, and `--set=epochs=10,height=256` changes settings of all rows.
"""

import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import app, flags

from keras_reid.reranking import RERANKERS

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder in the Market-1501 layout.", required=True)
flags.DEFINE_string("backbone", "mobilenetv2", "See keras_reid.models.backbones.build.")
flags.DEFINE_string("keypoints", None, "Table of body points, for rows with pose.")
flags.DEFINE_string("attributes", None, "Table of attributes, for rows with attributes.")
flags.DEFINE_string("runs", "runs/comparison", "Where the runs go, a folder for each table.")
flags.DEFINE_list("seeds", ["0", "1"], "One training of each row for each seed.")
flags.DEFINE_multi_string("row", [], "Only this row, and those of other --row; default: all.")
flags.DEFINE_list("set", [], "Values of the recipe for all rows, such as epochs=10,height=256.")

ROOT = Path(__file__).resolve().parent.parent
Flags = tuple[str, ...]
AS_TRAINED: dict[str, Flags] = {"": ()}


@dataclass(frozen=True)
class Row:
    """Training of one row.

    Attributes:
        train: flags of `train.py`. `{keypoints}` and `{attributes}` are flags of this program,
            `{runs[NAME]}` is the run of another row and the same seed.
        scores: flags of `evaluate.py` by their name in the table. `{occluded}`, `{shifted}` and
            `{unseen}` are test sets that are created on demand.
    """

    train: Flags
    scores: dict[str, Flags] = field(default_factory=lambda: AS_TRAINED)


@dataclass(frozen=True)
class Table:
    """Rows and their common settings.

    Attributes:
        same: flags of `train.py` for all rows.
        rows: by name.
        identities: number of training identities; 0: all.
        cameras: cameras of the training and test images; empty: all.
    """

    same: Flags
    rows: dict[str, Row]
    identities: int = 0
    cameras: tuple[int, ...] = ()


RERANKED = ("--rerank=k_reciprocal",)
ALONE: dict[str, Flags] = {"embedding": (), "re-ranked": RERANKED}
OF_FRAMES = ("--tracklets",)
TRACKLETS: dict[str, Flags] = {
    "tracklets, mean of the frames": OF_FRAMES,
    "tracklets, re-ranked": (*OF_FRAMES, *RERANKED),
}

OBJECTIVE = Table(
    ("--recipe=bot", "--epochs=5"),
    {
        "triplets of raw features": Row(("--nonormalize",), ALONE),
        "default": Row((), ALONE),
        "half the rate": Row(("--learning_rate=3.5e-4",), ALONE),
        "new layers at ten times the rate": Row(("--head_lr_multiplier=10",), ALONE),
    },
)
DEFAULT = Table(
    ("--recipe=bot",),
    {
        **{f"{n} epochs": Row((f"--epochs={n}", "--eval_every=2"), ALONE) for n in (12, 24)},
        "triplets of raw features, 12 epochs": Row(
            ("--nonormalize", "--epochs=12", "--eval_every=2"), ALONE
        ),
        "12 epochs, flip alone": Row(("--epochs=12", "--augment=flip"), ALONE),
        "24 epochs, and 5 larger": Row(
            (
                "--init_from={runs[24 epochs]}",
                "--height=192",
                "--width=96",
                "--epochs=5",
                "--learning_rate=3.5e-4",
            ),
            ALONE,
        ),
        "strong": Row(("--recipe=strong", "--eval_every=2"), {**ALONE, **TRACKLETS}),
    },
)
SETTINGS = Table(
    ("--recipe=bot", "--height=64", "--width=32", "--epochs=5"),
    {
        "default": Row(()),
        "twice the rate": Row(("--learning_rate=1.4e-3",)),
        "soft margin": Row(("--margin=soft",)),
        "margin 0.5": Row(("--margin=0.5",)),
        "circle loss": Row(("--metric_loss=circle",)),
        "CosFace": Row(("--softmax=cosface",)),
        "ArcFace": Row(("--softmax=arcface",)),
        "8 × 8 images": Row(("--num_identities_per_batch=8", "--num_instances=8")),
        "moving average 0.99": Row(("--ema_momentum=0.99",)),
        "AdamW 5e-4": Row(("--weight_decay=5e-4",)),
        "no smoothing": Row(("--label_smoothing=0",)),
        "color jitter": Row(("--augment=default+color",)),
        "images spread over cameras": Row(("--camera_balanced",)),
        "flip alone": Row(("--augment=flip",)),
        "last stride 2": Row(("--last_stride=2",)),
    },
)

# A metric loss alone is tested on the features that it was trained on, without a neck.
METRIC_ONLY = ("--identity_weight=0", "--neck=none")
LOSSES = Table(
    ("--recipe=bot", "--height=64", "--width=32", "--epochs=6"),
    {
        "classification": Row(("--recipe=classification",)),
        **{
            name: Row((*METRIC_ONLY, f"--metric_loss={loss}"))
            for name, loss in {
                "contrastive": "contrastive",
                "triplet, all": "triplet",
                "improved triplet": "improved_triplet",
                "quadruplet": "quadruplet",
                "improved quadruplet, the union": "improved_quadruplet",
                "triplet-hard": "triplet_hard",
                "soft triplet-hard": "soft_triplet_hard",
                "MSML": "margin_sample_mining",
                "lifted structure": "lifted_structure",
                "circle": "circle",
            }.items()
        },
        "classification, then triplet-hard": Row(
            ("--recipe=finetune_metric", "--pretrain_epochs=3", "--epochs=3")
        ),
        "joint: classification + triplet-hard": Row(("--recipe=joint",)),
    },
    identities=250,
)

MEMBERS: dict[str, Flags] = {
    "first": (),
    "second": ("--member=2",),
    "both side by side": ("--member=ensemble",),
}
TWO = "--members={backbone},{backbone}"

# The smallest backbone from nothing, and a pretrained one for a short time: alone, and as students
# of one that was trained for long.
SMALL = ("--backbone=tiny", "--weights=none", "--learning_rate=2e-3", "--epochs=10")
TEACHER = ("--teacher={runs[teacher]}", "--temperature=4")
DISTILLATION = Table(
    ("--recipe=bot", "--height=64", "--width=32"),
    {
        "teacher": Row(("--epochs=20",)),
        "tiny alone": Row(SMALL),
        "tiny, student": Row(("--recipe=distill_logits", *TEACHER, *SMALL)),
        "alone, 5 epochs": Row(("--epochs=5",)),
        "student, 5 epochs": Row(("--recipe=distill_logits", *TEACHER, "--epochs=5")),
    },
    identities=250,
)

SHIFTED = ("--data_dir={shifted}",)
WHOLE: dict[str, Flags] = {"as they are": (), "boxes shifted": SHIFTED}
STRIPES: dict[str, Flags] = {
    "aligned stripes too": ("--distance=global_local",),
    "aligned stripes too, boxes shifted": ("--distance=global_local", *SHIFTED),
}
TRAINED = {f"{name}, trained": (*flags, "--local=trained") for name, flags in STRIPES.items()}
METHODS = Table(
    ("--recipe=bot", "--height=64", "--width=32", "--epochs=8"),
    {
        "plain": Row(
            (),
            {
                **WHOLE,
                **STRIPES,
                **{f"re-ranked, {name}": (f"--rerank={name}",) for name in RERANKERS},
                **TRACKLETS,
            },
        ),
        "plain, twice as long": Row(
            ("--epochs=16",), {"as they are": (), "tracklets, mean of the frames": OF_FRAMES}
        ),
        "PCB": Row(("--recipe=pcb",), WHOLE),
        "PCB, new layers at ten times the rate": Row(("--recipe=pcb", "--head_lr_multiplier=10")),
        "PCB without triplets, with dropout and erasing": Row(
            ("--recipe=pcb", "--metric_weight=0", "--augment=default", "--part_dropout=0.5"),
        ),
        "aligned": Row(("--recipe=aligned", "--stripes=4"), {**WHOLE, **TRAINED}),
        "attributes": Row(
            ("--recipe=attributes", "--attributes={attributes}"),
            {
                "as they are": ("--attributes={attributes}",),
                "tracklets, mean of the frames": OF_FRAMES,
            },
        ),
        "attributes, new layers at ten times the rate": Row(
            ("--recipe=attributes", "--attributes={attributes}", "--head_lr_multiplier=10"),
            {"as they are": ("--attributes={attributes}",)},
        ),
        "tracklets, from plain": Row(
            ("--recipe=tracklets", "--init_from={runs[plain]}"), {"tracklets": OF_FRAMES}
        ),
        "tracklets, from plain twice as long": Row(
            ("--recipe=tracklets", "--init_from={runs[plain, twice as long]}"),
            {"tracklets": OF_FRAMES, "tracklets, re-ranked": (*OF_FRAMES, *RERANKED)},
        ),
        "two that learn from each other, logits": Row(
            ("--recipe=mutual", TWO, "--distillation=logits:1", "--ramp_up=2"), MEMBERS
        ),
        "two that learn from each other, logits and distances": Row(
            ("--recipe=mutual", TWO, "--ramp_up=2"), MEMBERS
        ),
    },
    identities=250,
)
COVERED = ("--data_dir={occluded}", "--keypoints={occluded}/keypoints.csv")
VISIBLE = ("--distance=visible",)
POSE = Table(
    ("--recipe=bot", "--epochs=5"),
    {
        "plain": Row((), {"as they are": (), "queries occluded": ("--data_dir={occluded}",)}),
        "pose": Row(
            ("--recipe=pose", "--keypoints={keypoints}"),
            {
                "as they are": (),
                "as they are, visible parts": VISIBLE,
                "queries occluded": COVERED,
                "queries occluded, visible parts": (*VISIBLE, *COVERED),
            },
        ),
        "PCB of 6 parts, 192×64": Row(("--recipe=pcb", "--parts=6", "--height=192")),
    },
    identities=250,
)
UNSEEN: dict[str, Flags] = {
    "cameras seen": (),
    "cameras never seen": ("--data_dir={unseen}",),
    "from these to all": ("--data_dir={from_unseen}",),
}
DOMAINS = Table(
    ("--recipe=bot", "--height=64", "--width=32", "--epochs=5"),
    {
        "default": Row((), UNSEEN),
        "color": Row(("--augment=default+color",), UNSEEN),
        "grayscale": Row(("--augment=default+grayscale",), UNSEEN),
        "blur": Row(("--augment=default+blur",), UNSEEN),
        "color, grayscale and blur": Row(("--augment=default+color+grayscale+blur",), UNSEEN),
        "MixStyle": Row(("--mixstyle=0.5",), UNSEEN),
        "images spread over cameras": Row(("--camera_balanced",), UNSEEN),
        "color and MixStyle": Row(("--augment=default+color", "--mixstyle=0.5"), UNSEEN),
        "color, grayscale, blur and MixStyle": Row(
            ("--augment=default+color+grayscale+blur", "--mixstyle=0.5"), UNSEEN
        ),
        "no erasing": Row(("--augment=crop",), UNSEEN),
        "no erasing; color, grayscale and blur": Row(
            ("--augment=crop+color+grayscale+blur",), UNSEEN
        ),
        "no erasing; color, grayscale, blur and MixStyle": Row(
            ("--augment=crop+color+grayscale+blur", "--mixstyle=0.5"), UNSEEN
        ),
        "no erasing; color": Row(("--augment=crop+color",), UNSEEN),
        "no erasing; instance norm": Row(("--augment=crop", "--instance_norm=1"), UNSEEN),
        "no erasing; instance norm of half": Row(("--augment=crop", "--instance_norm=0.5"), UNSEEN),
        "no erasing; color and instance norm": Row(
            ("--augment=crop+color", "--instance_norm=1"), UNSEEN
        ),
        "no erasing; color and instance norm of half": Row(
            ("--augment=crop+color", "--instance_norm=0.5"), UNSEEN
        ),
        "no erasing; color and MixStyle": Row(("--augment=crop+color", "--mixstyle=0.5"), UNSEEN),
    },
    cameras=(1, 2, 3, 5),
)
TABLES = {
    "objective": OBJECTIVE,
    "default": DEFAULT,
    "settings": SETTINGS,
    "losses": LOSSES,
    "methods": METHODS,
    "pose": POSE,
    "distillation": DISTILLATION,
    "domains": DOMAINS,
}
flags.DEFINE_enum("table", "losses", list(TABLES), "Which rows.")


def main(argv: list[str]) -> None:
    table = TABLES[FLAGS.table]
    rows = {name: row for name, row in table.rows.items() if not FLAGS.row or name in FLAGS.row}
    if missing := {*FLAGS.row} - {*rows}:
        sys.exit(f"error: --row must be one of {'; '.join(table.rows)}, got {', '.join(missing)}.")
    for seed in FLAGS.seeds:
        for name, row in rows.items():
            train(table, name, row, seed)
    seeds = " | ".join(f"seed {seed}" for seed in FLAGS.seeds)
    print(f"| trained | scored | {seeds} | mean | 95 % of mAP | minutes |")
    print("| --- | --- |" + " --- |" * (len(FLAGS.seeds) + 3))
    for name, row in rows.items():
        for label, wanted in row.scores.items():
            results = [score(table, name, label, wanted, seed) for seed in FLAGS.seeds]
            minutes = [
                json.loads(metrics(name, seed).read_text())["minutes"] for seed in FLAGS.seeds
            ]
            print(line(name, label, results, statistics.mean(minutes)), flush=True)


def line(name: str, label: str, results: list[dict[str, Any]], minutes: float) -> str:
    """Return rank-1 / mAP of each seed and the mean, and the interval of the first seed."""
    pairs = [(100 * result["cmc"][0], 100 * result["mAP"]) for result in results]
    each = [f"{r:.1f} / {m:.1f}" for r, m in pairs]
    rank1, mean_ap = map(statistics.mean, zip(*pairs, strict=True))
    low, high = (100 * end for end in results[0]["intervals"]["mAP"])
    if "attributes" in results[0]:
        found = results[0]["attributes"]
        label += (
            f" (mA {100 * found['mA']:.1f}, classifiers {100 * found['classifier_accuracy']:.1f})"
        )
    cells = [name, label, *each, f"**{rank1:.1f} / {mean_ap:.1f}**", f"{low:.1f} to {high:.1f}"]
    return f"| {' | '.join(cells)} | {minutes:.1f} |"


def train(table: Table, name: str, row: Row, seed: str) -> None:
    if metrics(name, seed).exists():
        return
    run = metrics(name, seed).parent
    wanted = [
        *images(table),
        "--cache=memory",
        f"--backbone={FLAGS.backbone}",
        f"--run={run}",
        f"--seed={seed}",
        *table.same,
        *row.train,
        *(f"--{value}" for value in FLAGS.set),
    ]
    call("train.py", filled(wanted, seed))


def score(table: Table, name: str, label: str, wanted: Flags, seed: str) -> dict[str, Any]:
    """Return the result of `evaluate.py` for a run, which is stored in its folder."""
    run = metrics(name, seed).parent
    file = run / f"score-{words(label) or 'as-trained'}.json"
    if not file.exists():
        given = (f"--run={run}", f"--out={file}", *wanted)
        if "--tracklets" in wanted:  # which are made of the names of files
            given += ("--dataset=market1501", f"--data_dir={FLAGS.data_dir}")
        elif any(flag.startswith("--data_dir=") for flag in wanted):
            given += ("--dataset=csv" if table.cameras else "--dataset=market1501",)
        call("evaluate.py", filled(given, seed), quiet=True)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def filled(wanted: Sequence[str], seed: str) -> list[str]:
    """Return the flags with braces replaced; the last flag of each name is used."""
    runs = {name: metrics(name, seed).parent for name in TABLES[FLAGS.table].rows}
    known = {"runs": runs, **{k: FLAGS[k].value for k in ("backbone", "keypoints", "attributes")}}
    text = " ".join(wanted)
    for name in ("keypoints", "attributes"):
        if f"{{{name}}}" in text and known[name] is None:
            sys.exit(f"error: this row needs a table of {name}: give --{name}")
    for name, make in TEST_SETS.items():
        if f"{{{name}}}" in text:
            known[name] = make()
    return [flag.format(**known) for flag in wanted]


def words(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def metrics(row: str, seed: str) -> Path:
    return Path(FLAGS.runs).absolute() / FLAGS.table / f"{words(row)}-{seed}" / "metrics.json"


def images(table: Table) -> Flags:
    """Return the flags of the data set, or of the list of images of the table."""
    if not table.identities and not table.cameras:
        return "--dataset=market1501", f"--data_dir={FLAGS.data_dir}"
    seen = table.cameras
    return "--dataset=csv", f"--data_dir={listed(table.identities, seen, seen, seen)}"


def listed(
    identities: int, train: Sequence[int], query: Sequence[int], gallery: Sequence[int]
) -> Path:
    """Return a CSV list of the first identities with images of these cameras; empty: all.

    Args:
        identities: number of training identities; 0: all.
        train, query, gallery: numbers of cameras.
    """
    from keras_reid import data

    cameras = {"train": train, "query": query, "gallery": gallery}
    words = [f"{part}-{''.join(map(str, chosen)) or 'all'}" for part, chosen in cameras.items()]
    file = Path(FLAGS.runs).absolute() / f"{identities or 'all'}-{'-'.join(words)}.csv"
    if file.exists():
        return file
    rows = []
    for split, found in data.load("market1501", FLAGS.data_dir).parts().items():
        number = found.classes()[1]
        for i, camera in enumerate(found.camera):
            too_many = split == "train" and identities and number[i] >= identities
            if not too_many and (not cameras[split] or camera in cameras[split]):
                path = Path(found.path[i]).resolve()
                rows.append([path, f"{found.identity[i]:04d}", camera, split])
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["path", "identity", "camera", "split"], *rows])
    return file


def made(folder: str, tool: str, *more: str) -> Path:
    """Return the test set that a program in tools/ creates from the data set."""
    out = Path(FLAGS.runs).absolute() / folder
    if not out.exists():
        call(f"tools/{tool}", [f"--data_dir={FLAGS.data_dir}", f"--out={out}", *more])
    return out


def occluded() -> Path:
    more = [f"--keypoints={FLAGS.keypoints}"] if FLAGS.keypoints else []
    return made("occluded", "occluded_queries.py", *more)


def shifted() -> Path:
    return made("shifted", "shifted_boxes.py")


def others() -> list[int]:
    """Return the cameras of Market-1501 without training images in the table."""
    return [camera for camera in range(1, 7) if camera not in TABLES[FLAGS.table].cameras]


def unseen() -> Path:
    """Return images of test persons in cameras without training images."""
    return listed(0, TABLES[FLAGS.table].cameras, others(), others())


def from_unseen() -> Path:
    """Return the test set of queries of unseen cameras and galleries of all cameras."""
    return listed(0, TABLES[FLAGS.table].cameras, others(), ())


TEST_SETS = {
    "occluded": occluded,
    "shifted": shifted,
    "unseen": unseen,
    "from_unseen": from_unseen,
}


def call(program: str, given: Sequence[str], quiet: bool = False) -> None:
    command = [sys.executable, str(ROOT / program), *given]
    print("+", *command, file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL if quiet else sys.stderr)
    if done.returncode:  # it has said why
        sys.exit(done.returncode)


if __name__ == "__main__":
    app.run(main)
