"""Frames per second and scores of tracking with a detector on every n-th frame.

    python benchmarks/tracking_speed.py --video=VIDEO --ground_truth=gt.txt --frames=200

The first row searches all windows of all frames, without threads. CPU seconds are those of all
threads of the process, and do not depend on other programs as much as frames per second.
"""

import argparse
import time
from itertools import islice

import numpy as np

from keras_reid import data, detection, inference, tracking
from keras_reid.data.mot import Boxes, read_mot
from keras_reid.tracking.detect import Detector
from keras_reid.tracking.pipeline import tracks_for


class First(data.Video):
    """First frames of a video."""

    def __init__(self, source: str, frames: int) -> None:
        super().__init__(source)
        self.frames = frames

    def timed(self):
        return islice(super().timed(), self.frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--video", required=True)
    parser.add_argument("--ground_truth", required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--every", type=int, nargs="*", default=[0, 1, 2, 3, 5])
    parser.add_argument("--model", default="pretrained", help="source of inference.load")
    options = parser.parse_args()
    truth = read_mot(options.ground_truth)
    truth = truth[(truth.confidence > 0) & (truth.frame <= options.frames)]
    embedder = inference.load(options.model)
    detector = detection.detector_of(None)
    video = First(options.video, options.frames)
    crops = tracking.Crops(lambda images: embedder([images]), embedder.image_size, 16)
    frame = next(iter(video))
    detector(frame)  # the first calls compile
    for count in range(1, 17):
        crops.of(frame, np.tile([0, 0, 20, 50], (count, 1)))
    print("| detector on | frames/s | CPU s/frame | HOTA | DetA | AssA | MOTA | IDF1 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for every in options.every:
        wall, cpu = time.perf_counter(), time.process_time()
        tracks = followed(video, detector, crops, every) if every else whole(video, detector, crops)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        s = tracking.tracking_scores(truth, tracks)
        scores = " | ".join(f"{100 * x:.1f}" for x in (s.hota, s.deta, s.assa, s.mota, s.idf1))
        name = f"every {every}. frame" if every else "all windows, no threads"
        speed = f"{options.frames / wall:.1f} | {cpu / options.frames:.3f}"
        print(f"| {name} | {speed} | {scores} |", flush=True)


def whole(video: First, detector: Detector, crops: tracking.Crops) -> Boxes:
    """Track with all windows of all frames, one step after the other."""
    boxes = tracking.detect_persons(video, detector)
    looks = tracking.embed_boxes(iter(video), boxes, crops.embed, crops.image_size)
    return tracking.track(boxes, looks)


def followed(video: First, detector: Detector, crops: tracking.Crops, every: int) -> Boxes:
    """Track as `track.py` does."""
    scene = tracking.in_scene(detector)
    steps = tracking.follow(video, lambda _, image: scene(image), tracks_for(every), crops)
    rows = [one for step in steps for one in step.complete]
    frame, track, box, confidence, _ = zip(*rows, strict=True)
    return Boxes(np.array(frame), np.array(track), np.array(box), np.array(confidence))


if __name__ == "__main__":
    main()
