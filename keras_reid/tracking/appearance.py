"""The appearance of persons in boxes: their crops through an embedder, some frames at a time."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from keras_reid import checks
from keras_reid.data.frames import cut
from keras_reid.data.mot import Boxes
from keras_reid.errors import InputError
from keras_reid.pixels import resize


def embed_boxes(
    frames: Iterator[np.ndarray],
    boxes: Boxes,
    embed: Callable[[np.ndarray], np.ndarray],
    image_size: tuple[int, int],
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """An embedding (n, d) for each box; a box without a pixel in its frame is black.

    Args:
        frames: all frames of the video, uint8 RGB (h, w, 3), in order.
        boxes: n, in the order of their frames.
        embed: from uint8 (b, h, w, 3) to (b, d).
        image_size: (h, w) of what is embedded.
        batch_size: boxes at a time.
        progress: called with the number of boxes done and of all.

    Raises:
        InputError: no boxes, boxes that are not in order, or beyond the last frame, or frames with
            pixels that uint8 does not hold.
    """
    if not len(boxes) or (np.diff(boxes.frame) < 0).any():
        raise InputError(
            f"boxes are at least one, in the order of their frames: received {len(boxes)}; "
            "sort them, or give another table"
        )
    number = 0

    def crops() -> Iterator[np.ndarray]:
        nonlocal number
        row = 0
        for number, frame in enumerate(frames, start=1):
            image = checks.pixels(frame, "frame")
            while row < len(boxes) and boxes.frame[row] == number:
                crop = cut(image, boxes.box[row])
                black = np.zeros((*image_size, 3), np.uint8)
                yield black if crop is None else resize(crop, image_size)
                row += 1
        boxes.check_frames(number)

    waiting, parts, done = crops(), [], 0
    while batch := list(islice(waiting, batch_size)):
        parts.append(embed(np.stack(batch)))
        done += len(batch)
        if progress:
            progress(done, len(boxes))
    return np.concatenate(parts)
