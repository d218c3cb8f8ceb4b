"""Motion of a box: Kalman filter of constant velocity."""

from dataclasses import dataclass

import numpy as np

# Standard deviations per frame, in heights of the box (Wojke et al., ICIP 2017).
POSITION, VELOCITY = 1 / 20, 1 / 160
GATE = 9.4877  # 95 % of chi-squared with 4 degrees of freedom


@dataclass(frozen=True)
class Motion:
    """Estimate of a box: center x, y, width, height, and their changes per frame.

    `mean` (8,) and `covariance` (8, 8) are in pixels. A step adds velocity to position, and noise
    proportional to the height (Wojke et al., DeepSORT, ICIP 2017, arXiv:1703.07402, with the width
    instead of the aspect ratio).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, box: np.ndarray) -> "Motion":
        """Return the estimate of a box (x, y, w, h) at rest."""
        measured = centered(box)
        noise = measured[3] * np.repeat([2 * POSITION, 10 * VELOCITY], 4)
        return cls(np.concatenate([measured, np.zeros(4)]), np.diag(noise**2))

    @property
    def box(self) -> np.ndarray:
        """Box (x, y, w, h) of the mean."""
        x, y, w, h = self.mean[:4]
        return np.array([x - w / 2, y - h / 2, w, h])

    def predicted(self) -> "Motion":
        """Return the estimate for the next frame."""
        noise = max(self.mean[3], 1.0) * np.repeat([POSITION, VELOCITY], 4)
        return Motion(STEP @ self.mean, STEP @ self.covariance @ STEP.T + np.diag(noise**2))

    def corrected(self, box: np.ndarray) -> "Motion":
        """Return the estimate updated with a detected box (x, y, w, h)."""
        gain = np.linalg.solve(self._innovation(), self.covariance[:4]).T
        mean = self.mean + gain @ (centered(box) - self.mean[:4])
        return Motion(mean, self.covariance - gain @ self.covariance[:4])

    def squared_mahalanobis(self, boxes: np.ndarray) -> np.ndarray:
        """Return `(z − Hx)ᵀ S⁻¹ (z − Hx)` (n,) of boxes (n, 4)."""
        apart = centered(boxes) - self.mean[:4]
        return np.einsum("ni,ni->n", apart, np.linalg.solve(self._innovation(), apart.T).T)

    def _innovation(self) -> np.ndarray:
        """Return the covariance (4, 4) of a measurement."""
        noise = max(self.mean[3], 1.0) * POSITION
        return self.covariance[:4, :4] + np.eye(4) * noise**2


STEP = np.eye(8) + np.eye(8, k=4)


def centered(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes (…, 4) from x, y, w, h to center x, y, w, h."""
    return np.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)
