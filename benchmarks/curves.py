"""Draw the score over minutes of training, for runs with `--eval_every`.

    python benchmarks/curves.py --out=curves.png "24 epochs=RUN" "strong=RUN"

reads what `train.py --eval_every=2` keeps in `RUN/history.jsonl`. Minutes are those of the epochs,
including evaluations, so compare runs of one idle machine. `--seconds` replaces them by a constant
duration of an epoch of images of 128×64, which grows with the number of pixels. Needs `pip install
matplotlib`.
"""

import argparse
import json
from itertools import accumulate
from pathlib import Path

PIXELS = 128 * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="A new picture, .png or .svg.")
    parser.add_argument("--seconds", type=float, help="Of an epoch of images of 128×64.")
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    given = parser.parse_args()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for text in given.runs:
        label, _, run = text.partition("=")
        minutes, scores = curve(Path(run), given.seconds)
        (line,) = axes.plot(minutes, scores, marker="o", markersize=3, label=label)
        axes.annotate(
            f"{scores[-1]:.1f}",
            (minutes[-1], scores[-1]),
            textcoords="offset points",
            xytext=(-8, 6),
            color=line.get_color(),
        )
    axes.set(xlabel="minutes of training", ylabel="mAP in percent")
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with Path(given.out).open("xb") as file:
        figure.savefig(file, format=Path(given.out).suffix[1:], dpi=120)


def curve(run: Path, seconds: float | None) -> tuple[list[float], list[float]]:
    """Return minutes since the start and mAP in percent of the scored epochs."""
    epochs = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    recipe = json.loads((run / "flags.json").read_text())
    area = recipe["height"] * recipe["width"] / PIXELS

    def took(epoch: dict[str, float]) -> float:
        small = epoch["epoch"] <= recipe.get("small_epochs", 0)
        return seconds * (area / 4 if small else area) if seconds else epoch["seconds"]

    minutes = accumulate(took(epoch) / 60 for epoch in epochs)
    points = [
        (at, 100 * epoch["val_mAP"])
        for at, epoch in zip(minutes, epochs, strict=True)
        if "val_mAP" in epoch
    ]
    return [at for at, _ in points], [score for _, score in points]


if __name__ == "__main__":
    main()
