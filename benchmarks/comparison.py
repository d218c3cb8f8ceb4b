"""Ways to train on one data set: the same backbone, budget and seeds.

    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2
    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2 \\
        --table=mutual --epochs=3 --seeds=0,1,2
    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2 \\
        --table=alignment --height=128 --width=64 --also=Market-shifted

trains every row of a table by `train.py` once for each seed and prints a Markdown table of rank-1
and mAP: metric losses against classification, each loss with its own defaults; a model alone
against members that learn from each other and students of a teacher; or global features, aligned
ones and parts, scored by several distances, on another test set `--also`. A row that is finished is
not trained again, so the same command goes on after an interruption.
"""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder in the Market-1501 layout.", required=True)
flags.DEFINE_string("backbone", "mobilenetv2", "See keras_reid.backbones.build.")
flags.DEFINE_string("runs", "runs/comparison", "Where the runs go.")
flags.DEFINE_enum("table", "losses", ["losses", "mutual", "alignment"], "Which rows.")
flags.DEFINE_list("also", [], "Folders in the Market-1501 layout whose test images are scored too.")
flags.DEFINE_list("seeds", ["0", "1"], "One training of each row for each seed.")
flags.DEFINE_list("rows", [], "Only these rows; default: all.")
flags.DEFINE_integer("train_identities", 0, "Train on the first so many only; 0: on all.")
flags.DEFINE_integer("epochs", 4, "Of each training; of a row in two phases, half in each.")
flags.DEFINE_integer("height", 64, "Pixels.")
flags.DEFINE_integer("width", 32, "Pixels.")
flags.DEFINE_integer("identities", 8, "P; K is 4.")
flags.DEFINE_float("learning_rate", 3.5e-4, "The same for all rows.")

# A metric loss alone is tested on the features that it was trained on, without a neck.
METRIC_ONLY = ("--identity_weight=0", "--neck=none")

LOSSES: dict[str, tuple[str, ...]] = {
    "classification": ("--recipe=classification",),
    "contrastive": (*METRIC_ONLY, "--metric_loss=contrastive"),
    "triplet, all": (*METRIC_ONLY, "--metric_loss=triplet"),
    "improved triplet": (*METRIC_ONLY, "--metric_loss=improved_triplet"),
    "quadruplet": (*METRIC_ONLY, "--metric_loss=quadruplet"),
    "triplet-hard": (*METRIC_ONLY, "--metric_loss=triplet_hard"),
    "soft triplet-hard": (*METRIC_ONLY, "--metric_loss=soft_triplet_hard"),
    "MSML": (*METRIC_ONLY, "--metric_loss=margin_sample_mining"),
    "classification, then triplet-hard": ("--recipe=finetune_metric",),
    "joint: classification + triplet-hard": ("--recipe=joint",),
}

# The smallest backbone from nothing, alone and as two that learn from each other; then as the
# student of a --backbone, {backbone}, that was trained once, by the first seed.
SMALL = (
    "--recipe=classification",
    "--backbone=tiny",
    "--weights=none",
    "--learning_rate=1e-3",
)
TWO = (*SMALL, "--members=tiny,tiny")
MUTUAL: dict[str, tuple[str, ...]] = {
    "alone": SMALL,
    "two, logits": (*TWO, "--imitate=logits:1"),
    "two, distances": (*TWO, "--imitate=distances:0.1"),
    "two, logits and distances": (*TWO, "--imitate=logits:1,distances:0.1"),
    "two, ranks": (*TWO, "--imitate=ranks:0.1"),
    "teacher": ("--recipe=classification", "--backbone={backbone}"),
    "student of the teacher": (
        *SMALL,
        "--teacher={teacher}",
        "--imitate=logits:1",
        "--temperature=4",
    ),
}
ALIGNMENT: dict[str, tuple[str, ...]] = {
    "global": ("--recipe=bot",),
    "aligned": ("--recipe=aligned",),
    "PCB": ("--recipe=pcb",),
}
TABLES = {"losses": LOSSES, "mutual": MUTUAL, "alignment": ALIGNMENT}


def main(argv: list[str]) -> None:
    rows = FLAGS.rows or list(TABLES[FLAGS.table])
    for seed in FLAGS.seeds:
        for row in rows:
            if seed in seeds_of(row):
                train(row, seed)
    (by_distance if FLAGS.table == "alignment" else by_member)(rows)


def by_member(rows: list[str]) -> None:
    """Rank-1 / mAP of each row, and of each of its members if it has several."""
    print(
        "| row | " + " | ".join(f"seed {s}" for s in FLAGS.seeds) + " | mean | spread | minutes |"
    )
    print("| --- |" + " --- |" * (len(FLAGS.seeds) + 3))
    for row in rows:
        results = [json.loads(scores(row, seed).read_text()) for seed in seeds_of(row)]
        minutes = statistics.mean(result["minutes"] for result in results)
        for member in results[0].get("members", {"": None}):
            scored = [
                result["members"][member] if member else result["after"] for result in results
            ]
            print(line(f"{row}: {member}" if member else row, scored, minutes))


def by_distance(rows: list[str]) -> None:
    """Rank-1 / mAP of each row by each distance, on each test set: the means over the seeds."""
    sets = [FLAGS.data_dir, *FLAGS.also]
    print(f"| trained | compared by | {' | '.join(Path(s).name for s in sets)} |")
    print("| --- | --- |" + " --- |" * len(sets))
    for row in rows:
        results = [[by_test_set(row, seed, s) for seed in FLAGS.seeds] for s in sets]
        for distance in results[0][0]:
            cells = [both([seed[distance] for seed in of_set]) for of_set in results]
            print(f"| {row} | {distance} | {' | '.join(cells)} |")


def both(results: list[dict]) -> str:
    """Mean rank-1 / mAP in percent and, in brackets, those of each seed."""
    each = percents(results)
    rank1, mean_ap = map(statistics.mean, zip(*each, strict=True))
    seeds = ", ".join(f"{r:.1f} / {m:.1f}" for r, m in each)
    return f"**{rank1:.1f} / {mean_ap:.1f}** ({seeds})"


def by_test_set(row: str, seed: str, data_dir: str) -> dict[str, dict]:
    """The scores of a trained row by each distance, kept in its run folder."""
    run = scores(row, seed).parent
    file = run / f"{Path(data_dir).name}.json"
    if not file.exists():
        from keras_reid import models
        from keras_reid.training import Run

        model = Run(run).load_model()
        results = score(models.stripes(model), data_dir, ("global", "local", "global_local"))
        if "local" in model.output:
            trained = score(model, data_dir, ("local", "global_local"))
            results |= {f"{name}, trained stripes": value for name, value in trained.items()}
        file.write_text(json.dumps(results, indent=2))
    return json.loads(file.read_text())


def score(model: Any, data_dir: str, by: tuple[str, ...]) -> dict[str, dict]:
    """The scores of a model with the outputs embedding and local by each distance."""
    from keras_reid import data, evaluation, models

    dataset = data.load("market1501", data_dir)
    embedder = models.Embedder(model, flip=True, local=True)
    query, gallery = (
        embedder(data.image_batches(part, 128, embedder.image_size))
        for part in (dataset.query, dataset.gallery)
    )
    columns = [
        getattr(p, c) for c in ("identity", "camera") for p in (dataset.query, dataset.gallery)
    ]
    names = {"global": "euclidean"}
    return {
        name: evaluation.rank((query, gallery), *columns, distance=names.get(name, name)).as_dict()
        for name in by
    }


def line(name: str, scored: list[dict], minutes: float) -> str:
    """Rank-1 / mAP of each seed, their mean and, of several seeds, their standard deviation."""
    pairs = percents(scored)
    each = [f"{r:.1f} / {m:.1f}" for r, m in pairs] + [""] * (len(FLAGS.seeds) - len(pairs))
    rank1, mean_ap = map(statistics.mean, zip(*pairs, strict=True))
    spread = map(statistics.stdev, zip(*pairs, strict=True)) if len(pairs) > 1 else ()
    around = " / ".join(f"{value:.1f}" for value in spread)
    cells = [name, *each, f"**{rank1:.1f} / {mean_ap:.1f}**", around, f"{minutes:.1f}"]
    return f"| {' | '.join(cells)} |"


def percents(results: list[dict]) -> list[tuple[float, float]]:
    """Rank-1 and mAP of each result."""
    return [(100 * result["cmc"][0], 100 * result["mAP"]) for result in results]


def seeds_of(row: str) -> list[str]:
    return FLAGS.seeds[:1] if row == "teacher" else FLAGS.seeds


def scores(row: str, seed: str) -> Path:
    name = "-".join("".join(c if c.isalnum() else " " for c in row).split())
    return Path(FLAGS.runs) / f"{name}-{seed}" / "metrics.json"


def dataset() -> tuple[str, ...]:
    """The flags of the data set, or of a table of its first identities and all that are scored."""
    if not FLAGS.train_identities:
        return "--dataset=market1501", f"--data_dir={FLAGS.data_dir}"
    table = Path(FLAGS.runs) / f"first-{FLAGS.train_identities}.csv"
    if not table.exists():
        from keras_reid import data

        parts = data.load("market1501", FLAGS.data_dir).parts()
        kept = parts["train"].classes()[1] < FLAGS.train_identities
        parts["train"] = parts["train"][kept]
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "identity", "camera", "split"])
            for split, images in parts.items():
                paths = [str(Path(path).resolve()) for path in images.path]
                columns = (paths, images.identity, images.camera)
                rows.writerows((*row, split) for row in zip(*columns, strict=True))
    return "--dataset=csv", f"--data_dir={table}"


def train(row: str, seed: str) -> None:
    metrics = scores(row, seed)
    if metrics.exists():
        return
    epochs = FLAGS.epochs
    teacher = scores("teacher", FLAGS.seeds[0]).parent
    own = [
        flag.format(backbone=FLAGS.backbone, teacher=teacher) for flag in TABLES[FLAGS.table][row]
    ]
    if "--recipe=finetune_metric" in own:
        epochs = FLAGS.epochs // 2
    command = [
        sys.executable,
        str(Path(__file__).resolve().parent.parent / "train.py"),
        *dataset(),
        "--cache=memory",
        f"--backbone={FLAGS.backbone}",
        f"--run={metrics.parent}",
        f"--seed={seed}",
        f"--epochs={epochs}",
        f"--height={FLAGS.height}",
        f"--width={FLAGS.width}",
        f"--identities={FLAGS.identities}",
        f"--learning_rate={FLAGS.learning_rate}",
        *own,
    ]
    if "--recipe=finetune_metric" in own:
        command.append(f"--pretrain={FLAGS.epochs - epochs}")
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    app.run(main)
