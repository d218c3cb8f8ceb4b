"""Pose, attributes and tracklets against the plain model: one training each, the same budget.

    python benchmarks/enhance.py --data_dir=Market-1501 --keypoints=K.csv --attributes=A.csv

The data set is in the layout of Market-1501. Every row has the backbone, epochs, image size and
seed of the others; runs that are finished are not repeated. Two tables are printed: single images
under the protocol market1501, and the same images grouped to tracklets under that of MARS.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What is printed, which run it is of, and the flags of evaluate.py.
IMAGES = (
    ("plain", "plain", ()),
    ("pose", "pose", ()),
    ("pose, only what both show", "pose", ("--distance=visible",)),
    ("attributes", "attributes", ("--attributes={attributes}",)),
    ("attributes, sure ones (0.7) agree", "attributes", ("--attribute_filter=0.7",)),
)
AGAIN = ("--rerank=k_reciprocal",)
TRACKLETS = (
    ("plain, mean of its frames", "plain", ()),
    *(
        (f"plain, frame by frame: {kind}", "plain", (f"--set_distance={kind}",))
        for kind in ("min", "mean", "hausdorff", "mean_min")
    ),
    ("attributes, mean of its frames", "attributes", ()),
    ("tracklets", "tracklets", ()),
    ("plain, mean of its frames, re-ranked", "plain", AGAIN),
    ("tracklets, re-ranked", "tracklets", AGAIN),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--keypoints", required=True, help="Table of body points.")
    parser.add_argument("--attributes", required=True, help="Table of attributes.")
    parser.add_argument("--backbone", default="mobilenetv2", help="Name or .keras file.")
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--runs", default="runs/enhance")
    given = parser.parse_args()
    recipes = {
        "plain": ["--recipe=bot"],
        "pose": ["--recipe=pose", f"--keypoints={given.keypoints}"],
        "attributes": ["--recipe=attributes", f"--attributes={given.attributes}"],
        "tracklets": ["--recipe=tracklets"],
    }
    same = [f"--backbone={given.backbone}", f"--epochs={given.epochs}", "--cache=memory"]
    data = ["--dataset=market1501", f"--data_dir={given.data_dir}"]
    runs = Path(given.runs)
    for name, flags in recipes.items():
        if not (runs / name / "metrics.json").exists():
            call("train.py", *flags, *same, *data, f"--run={runs / name}")
    for title, rows, more in (
        ("single images", IMAGES, ()),
        ("tracklets", TRACKLETS, ("--tracklets",)),
    ):
        print(f"\n| {title} | rank-1 | mAP | 95 % of mAP | minutes of training |")
        print("| --- | --- | --- | --- | --- |")
        for label, name, flags in rows:
            wanted = [flag.format(attributes=given.attributes) for flag in flags]
            print(line(label, runs / name, [*data, *more, *wanted]), flush=True)


def line(label: str, run: Path, flags: list[str]) -> str:
    """A row of the table; the mean accuracy of attributes beside it, if they are scored."""
    file = run / f"{'-'.join(label.replace(':', '').replace(',', '').split())}.json"
    if not file.exists():
        call("evaluate.py", f"--run={run}", *flags, f"--out={file}")
    scores = json.loads(file.read_text())
    minutes = json.loads((run / "metrics.json").read_text())["minutes"]
    if "attributes" in scores:
        label += f" (mA {100 * scores['attributes']['mA']:.1f} %)"
    low, high = (100 * end for end in scores["intervals"]["mAP"])
    rank1, mean_ap = 100 * scores["cmc"][0], 100 * scores["mAP"]
    cells = f"{rank1:.1f} | {mean_ap:.1f} | {low:.1f} to {high:.1f} | {minutes:.1f}"
    return f"| {label} | {cells} |"


def call(command: str, *flags: str) -> None:
    subprocess.run([sys.executable, ROOT / command, *flags], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
