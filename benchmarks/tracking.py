"""Tracking with appearance off and on: switches of identity, IDF1, HOTA.

    python benchmarks/tracking.py --video=VIDEO --ground_truth=gt.txt
    python benchmarks/tracking.py --video=VIDEO --ground_truth=gt.txt --run=RUN

The detections are the true boxes without their identities: as they are; every third frame alone;
and with three in ten missing and every side moved by 5 % of the size of the box (normal).
"""

import argparse

import numpy as np

from keras_reid import data, inference, tracking
from keras_reid.data.mot import Boxes, read_mot

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--video", required=True)
    parser.add_argument("--ground_truth", required=True)
    parser.add_argument("--model", default="pretrained", help="source of inference.load")
    given = parser.parse_args()
    truth = read_mot(given.ground_truth)
    truth = truth[truth.confidence > 0]
    embedder = inference.load(given.model)
    print("| detections | appearance | IDF1 | switches | MOTA | HOTA | tracks |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, frames, wanted, found in scenes(given.video, truth):
        looks = tracking.embed_boxes(
            iter(frames), found, lambda images: embedder([images]), embedder.image_size
        )
        for how, embeddings in (("off", None), ("on", looks)):
            tracks = tracking.track(found, embeddings)
            s = tracking.tracking_scores(wanted, tracks)
            idf1, mota, hota = (f"{100 * x:.1f}" for x in (s.idf1, s.mota, s.hota))
            count = len(np.unique(tracks.identity))
            print(
                f"| {name} | {how} | {idf1} | {s.switches} | {mota} | {hota} | {count} |",
                flush=True,
            )


def scenes(video: str, truth: Boxes) -> list[tuple[str, list[np.ndarray], Boxes, Boxes]]:
    """Return name, frames, true boxes and detections of each kind of detections."""
    frames = list(data.Video(video))
    third = truth[truth.frame % 3 == 1]
    third = Boxes((third.frame - 1) // 3 + 1, third.identity, third.box, third.confidence)
    random = np.random.default_rng(SEED)
    moved = truth.box + random.normal(0, 0.05, truth.box.shape) * truth.box[:, [2, 3, 2, 3]]
    seen = random.random(len(truth)) > 0.3
    poor = Boxes(truth.frame, truth.identity, moved, truth.confidence)[seen]
    return [
        ("true boxes", frames, truth, truth),
        ("true boxes, every third frame", frames[::3], third, third),
        ("30 % missing, 5 % noise", frames, truth, poor),
    ]


if __name__ == "__main__":
    main()
