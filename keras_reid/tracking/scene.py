"""Choice of the windows that a detector searches."""

import inspect
from collections import deque

import numpy as np

from keras_reid.detection import Detector
from keras_reid.detection.windows import windows_of

SCANNED = 1  # windows without persons per frame
REMEMBERED = 2  # number of frames that a person keeps a window
HIGHEST = 0.6  # heights of a window; the whole frame shows larger persons


class SceneWindows:
    """Detector that searches where persons were, and in a few other windows in turn.

    Each frame is searched in the windows around the last detections, in `scanned` other windows,
    and as a whole. A person who enters is therefore detected a few frames later than in all
    windows. A scene of large persons requires no windows around them.

    Args:
        detector: function of a frame and of `chosen`, indices in `windows_of`.
        scanned: number of further windows per frame.
        remembered: number of frames in which a detection keeps its window.
    """

    def __init__(
        self, detector: Detector, scanned: int = SCANNED, remembered: int = REMEMBERED
    ) -> None:
        self.detector, self.scanned = detector, scanned
        self._seen: deque[np.ndarray] = deque(maxlen=remembered)
        self._turn = 0

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        windows = np.array(windows_of(*frame.shape[:2])).reshape(-1, 4)
        if self._seen and len(windows):
            chosen = self._around(windows, np.concatenate(self._seen))
            others = [i % len(windows) for i in range(self._turn, self._turn + len(windows))]
            others = [i for i in others if i not in chosen][: self.scanned]
            if others:
                self._turn = others[-1] + 1
            chosen |= {*others}
        else:  # the first frame
            chosen = {*range(len(windows))}
        boxes, scores = self.detector(frame, chosen=sorted(chosen))  # type: ignore[call-arg]
        self._seen.append(boxes)
        return boxes, scores

    def _around(self, windows: np.ndarray, boxes: np.ndarray) -> set[int]:
        """Return for each box the window in which it is farthest from the edges.

        Of several, the one with the nearest center is returned, so that a moving person stays in
        it.
        """
        small = boxes[boxes[:, 3] < HIGHEST * windows[0, 3]]
        if not len(small):
            return set()
        first = small[:, None, :2] - windows[None, :, :2]
        last = windows[None, :, :2] + windows[None, :, 2:] - small[:, None, :2] - small[:, None, 2:]
        inside = np.minimum(first, last).min(axis=-1)
        aside = np.abs(last - first).sum(axis=-1)  # 0 at the center
        return {*np.argmax(inside - 1e-3 * aside, axis=1).tolist()}


def in_scene(detector: Detector) -> Detector:
    """Return the detector in `SceneWindows` if it searches in windows, else unchanged."""
    has_windows = "chosen" in inspect.signature(detector).parameters
    return SceneWindows(detector) if has_windows else detector
