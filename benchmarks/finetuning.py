"""Training on few persons: from ImageNet weights against from a person embedder.

    python benchmarks/finetuning.py --data_dir=Market-1501 --imagenet=mobilenetv2 \\
        --embedder=RUN --runs=runs/finetuning

Small sets as users have them are drawn from the *test* persons of a data set, whom the embedder of
`--embedder` (a run) has not seen: 50 persons with one image from each of their cameras to train on,
all others to score. Each start is trained by the same flags, so for the same time; the embedder is
scored without any training, too. Prints rank-1 / mAP of each draw.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from keras_reid import data

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder in the Market-1501 layout.", required=True)
flags.DEFINE_string("imagenet", "mobilenetv2", "Backbone with ImageNet weights.")
flags.DEFINE_string("embedder", None, "Run folder of the embedder.", required=True)
flags.DEFINE_string("runs", "runs/finetuning", "Where the runs go.")
flags.DEFINE_list("seeds", ["0", "1"], "One drawn set and training for each.")
flags.DEFINE_integer("people", 50, "Persons to train on.")
flags.DEFINE_list("set", ["epochs=20"], "Values of the recipe.")

ROOT = Path(__file__).resolve().parent.parent


def drawn(seed: int, file: Path) -> None:
    """Write the list of a small training set."""
    whole = data.load("market1501", FLAGS.data_dir)
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(whole.query.identity))[: FLAGS.people]
    everything = data.joined(whole.query, whole.gallery)
    of_them = everything[np.isin(everything.identity, names)]
    order = rng.permutation(len(of_them))
    pairs = np.stack([of_them.identity[order], of_them.camera[order]], axis=1)
    first = order[np.unique(pairs, axis=0, return_index=True)[1]]
    others = ((part, getattr(whole, part)) for part in ("query", "gallery"))
    parts = {"train": of_them[first]}
    parts |= {part: images[~np.isin(images.identity, names)] for part, images in others}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(("path", "identity", "camera", "split"))
        for part, images in parts.items():
            rows = zip(images.path, images.identity, images.camera, strict=True)
            table.writerows((*row, part) for row in rows)


def call(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / program), *arguments], check=True)


def result(file: Path, *keys: str) -> str:
    values = json.loads(file.read_text())
    for key in keys:
        values = values[key]
    return f"{100 * values['cmc'][0]:.1f} / {100 * values['mAP']:.1f}"


def main(argv: list[str]) -> None:
    root = Path(FLAGS.runs).absolute()
    starts = {
        "ImageNet": (f"--backbone={FLAGS.imagenet}",),
        "embedder": (f"--backbone={FLAGS.imagenet}", f"--init_from={FLAGS.embedder}"),
    }
    table: dict[str, list[str]] = {"embedder, not trained further": []}
    for seed in FLAGS.seeds:
        people = root / f"people-{seed}.csv"
        drawn(int(seed), people)
        where = ("--dataset=csv", f"--data_dir={people}")
        scored = root / f"embedder-{seed}.json"
        if not scored.exists():
            call("evaluate.py", f"--run={FLAGS.embedder}", *where, f"--out={scored}")
        table["embedder, not trained further"].append(result(scored))
        for name, start in starts.items():
            run = root / f"{name}-{seed}"
            if not (run / "metrics.json").exists():
                values = [f"--{value}" for value in FLAGS.set]
                seeded = (f"--run={run}", f"--seed={seed}", "--cache=memory")
                call("train.py", *where, *start, *seeded, *values)
            table.setdefault(name, []).append(result(run / "metrics.json", "after"))
    print("| start | " + " | ".join(f"draw {seed}" for seed in FLAGS.seeds) + " |")
    print("| --- |" + " --- |" * len(FLAGS.seeds))
    for name, scores in table.items():
        print(f"| {name} | " + " | ".join(scores) + " |")


if __name__ == "__main__":
    app.run(main)
