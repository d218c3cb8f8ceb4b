"""Images resized to the input of a network, and boxes mapped back."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

GRAY = 114  # of the border, as in the training of YOLO and YOLOX


@dataclass(frozen=True)
class Letterbox:
    """Mapping of an image to the input of a network.

    Attributes:
        size: (height, width) of the input in pixels.
        inner: (height, width) of the resized image in the input.
        start: (top, left) of the resized image.
        scale: pixels of the input per pixel of the image, vertically and horizontally.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    start: tuple[int, int]
    scale: tuple[float, float]

    @classmethod
    def stretched(cls, image: tuple[int, int], size: tuple[int, int]) -> "Letterbox":
        """Return the mapping that fills the input; `image` is the (height, width) of the image."""
        return cls(size, size, (0, 0), (size[0] / image[0], size[1] / image[1]))

    @classmethod
    def centered(cls, image: tuple[int, int], size: tuple[int, int]) -> "Letterbox":
        """Return the mapping that keeps the aspect ratio, with borders on both sides."""
        scale = min(size[0] / image[0], size[1] / image[1])
        inner = max(1, round(image[0] * scale)), max(1, round(image[1] * scale))
        # A border of an odd number of pixels is smaller at the top and at the left.
        top, left = (round((size[i] - inner[i]) / 2 - 0.1) for i in range(2))
        return cls(size, inner, (top, left), (scale, scale))

    @classmethod
    def cornered(cls, image: tuple[int, int], size: tuple[int, int]) -> "Letterbox":
        """Return the mapping that keeps the aspect ratio, with borders at the bottom and right."""
        scale = min(size[0] / image[0], size[1] / image[1])
        inner = max(1, int(image[0] * scale)), max(1, int(image[1] * scale))
        return cls(size, inner, (0, 0), (scale, scale))

    def filled(self, image: np.ndarray) -> np.ndarray:
        """Return the input, uint8 (H, W, 3), of an image, uint8 (h, w, 3)."""
        canvas = np.full((*self.size, 3), GRAY, np.uint8)
        (top, left), (height, width) = self.start, self.inner
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        canvas[top : top + height, left : left + width] = np.asarray(resized)
        return canvas

    def restored(self, corners: np.ndarray, image: tuple[int, int]) -> np.ndarray:
        """Return boxes (n, 4) as x, y, w, h in the image, clipped to it.

        Args:
            corners: (n, 4), left, top, right and bottom in pixels of the input.
            image: (height, width) of the image.
        """
        start = np.array(self.start[::-1] * 2, float)
        scale = np.array(self.scale[::-1] * 2)
        ends = np.clip((corners - start) / scale, 0, np.array(image[::-1] * 2, float))
        return np.concatenate([ends[:, :2], ends[:, 2:] - ends[:, :2]], axis=1)
