"""Embeddings of the persons in boxes of a video."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from keras_reid import checks
from keras_reid.data.frames import cut
from keras_reid.data.mot import Boxes
from keras_reid.pixels import resize
from keras_reid.tracking.detections import check_order


def embed_boxes(
    frames: Iterator[np.ndarray],
    boxes: Boxes,
    embed: Callable[[np.ndarray], np.ndarray],
    image_size: tuple[int, int],
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return one embedding (n, d) per box; a box outside its frame is embedded as black.

    Args:
        frames: all frames of the video, uint8 RGB (h, w, 3), in order.
        boxes: n, in the order of their frames.
        embed: function from uint8 (b, h, w, 3) to (b, d).
        image_size: (h, w) of the embedder's images.
        batch_size: number of boxes per batch.
        progress: called with the number of embedded boxes and of all boxes.

    Raises:
        InputError: there is no box, boxes are not in the order of their frames or are beyond the
            last frame, or frames have values that uint8 cannot represent.

    Example:
        >>> import numpy as np
        >>> from keras_reid import tracking
        >>> from keras_reid.data.mot import Boxes
        >>> frames = np.full((2, 100, 80, 3), 7, np.uint8)
        >>> box = np.array([[10, 20, 30, 60], [12, 20, 30, 60]])
        >>> boxes = Boxes(np.array([1, 2]), np.array([-1, -1]), box, np.ones(2))
        >>> tracking.embed_boxes(iter(frames), boxes, lambda x: x.mean(axis=(1, 2)), (128, 64))
        array([[7., 7., 7.],
               [7., 7., 7.]])
    """
    checks.at_least(1, boxes=len(boxes))
    check_order(boxes=boxes)
    black = np.zeros((*image_size, 3), np.uint8)

    def crops() -> Iterator[np.ndarray]:
        number = 0
        for number, frame in enumerate(frames, start=1):
            image = checks.pixels(frame, "frame")
            for row in range(*np.searchsorted(boxes.frame, (number, number + 1))):
                crop = cut(image, boxes.box[row])
                yield black if crop is None else resize(crop, image_size)
        boxes.check_frames(number)

    remaining, parts, done = crops(), [], 0
    while batch := list(islice(remaining, batch_size)):
        parts.append(embed(np.stack(batch)))
        done += len(batch)
        if progress:
            progress(done, len(boxes))
    return np.concatenate(parts)
