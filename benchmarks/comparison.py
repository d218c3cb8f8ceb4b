"""Metric losses against classification on one data set: the same backbone, budget and seeds.

    python benchmarks/comparison.py --data_dir=Market-1501 --backbone=mobilenetv2

trains every row of ROWS by `train.py` once for each seed, each loss with its own defaults, and
prints a Markdown table of rank-1 and mAP. A row that is finished is not trained again, so the same
command goes on after an interruption.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder in the Market-1501 layout.", required=True)
flags.DEFINE_string("backbone", "mobilenetv2", "See keras_reid.backbones.build.")
flags.DEFINE_string("runs", "runs/comparison", "Where the runs go.")
flags.DEFINE_list("seeds", ["0", "1"], "One training of each row for each seed.")
flags.DEFINE_list("rows", [], "Only these rows; default: all.")
flags.DEFINE_integer("epochs", 4, "Of each training; of a row in two phases, half in each.")
flags.DEFINE_integer("height", 64, "Pixels.")
flags.DEFINE_integer("width", 32, "Pixels.")
flags.DEFINE_integer("identities", 8, "P; K is 4.")
flags.DEFINE_float("learning_rate", 3.5e-4, "The same for all rows.")

# A metric loss alone is tested on the features that it was trained on, without a neck.
METRIC_ONLY = ("--identity_weight=0", "--neck=none")

ROWS: dict[str, tuple[str, ...]] = {
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


def main(argv: list[str]) -> None:
    rows = FLAGS.rows or list(ROWS)
    for seed in FLAGS.seeds:
        for row in rows:
            train(row, seed)
    print("| loss | " + " | ".join(f"seed {s}" for s in FLAGS.seeds) + " | mean | minutes |")
    print("| --- |" + " --- |" * (len(FLAGS.seeds) + 2))
    for row in rows:
        print(line([json.loads(scores(row, seed).read_text()) for seed in FLAGS.seeds], row))


def line(results: list[dict], row: str) -> str:
    rank1 = [100 * result["after"]["cmc"][0] for result in results]
    mean_ap = [100 * result["after"]["mAP"] for result in results]
    both = [f"{r:.1f} / {m:.1f}" for r, m in zip(rank1, mean_ap, strict=True)]
    mean = f"{statistics.mean(rank1):.1f} / {statistics.mean(mean_ap):.1f}"
    minutes = statistics.mean(result["minutes"] for result in results)
    return f"| {row} | " + " | ".join(both) + f" | **{mean}** | {minutes:.1f} |"


def scores(row: str, seed: str) -> Path:
    name = "-".join("".join(c if c.isalnum() else " " for c in row).split())
    return Path(FLAGS.runs) / f"{name}-{seed}" / "metrics.json"


def train(row: str, seed: str) -> None:
    metrics = scores(row, seed)
    if metrics.exists():
        return
    epochs = FLAGS.epochs
    if "--recipe=finetune_metric" in ROWS[row]:
        epochs = FLAGS.epochs // 2
    command = [
        sys.executable,
        str(Path(__file__).resolve().parent.parent / "train.py"),
        "--dataset=market1501",
        "--cache=memory",
        f"--data_dir={FLAGS.data_dir}",
        f"--backbone={FLAGS.backbone}",
        f"--run={metrics.parent}",
        f"--seed={seed}",
        f"--epochs={epochs}",
        f"--height={FLAGS.height}",
        f"--width={FLAGS.width}",
        f"--identities={FLAGS.identities}",
        f"--learning_rate={FLAGS.learning_rate}",
        *ROWS[row],
    ]
    if "--recipe=finetune_metric" in ROWS[row]:
        command.append(f"--pretrain={FLAGS.epochs - epochs}")
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    app.run(main)
