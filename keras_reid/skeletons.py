"""Names of body points, and their order in mirrored images."""

from dataclasses import dataclass
from typing import Any

from keras_reid.errors import Shown, invalid

KEYPOINTS = "keypoints"  # the column of images, and the input of models
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# The head, and the left and right of each limb.
PARTS = ("head", *(f"{side}_{limb}" for limb in LIMBS for side in ("left", "right")))


@dataclass(frozen=True)
class Skeleton:
    """Names of body points; points outside the limbs belong to the head."""

    names: tuple[str, ...]

    @property
    def mirror(self) -> tuple[int, ...]:
        """Index of the opposite point of each point, such as the right ankle of the left one."""
        opposite = {"left": "right", "right": "left"}
        names = ("_".join(opposite.get(word, word) for word in n.split("_")) for n in self.names)
        return tuple(map(self.names.index, names))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Points of each of the 13 `PARTS` (Wang et al., HOReID, CVPR 2020)."""
        part = [name if name in PARTS else PARTS[0] for name in self.names]
        return tuple(tuple(i for i, p in enumerate(part) if p == name) for name in PARTS)


def _sided(*limbs: str) -> tuple[str, ...]:
    return tuple(f"{side}_{limb}" for limb in limbs for side in ("left", "right"))


COCO = Skeleton(("nose", *_sided("eye", "ear", *LIMBS)))
MARKET = Skeleton(
    (
        *("head_top", "neck_front"),
        *(f"right_{limb}" for limb in LIMBS),
        *(f"left_{limb}" for limb in reversed(LIMBS)),
        "neck",
    )
)
SKELETONS: dict[int, Skeleton] = {len(s.names): s for s in (MARKET, COCO)}


def skeleton_of(points: Any) -> Skeleton:
    """Return the skeleton of points (…, k, 3), which k determines.

    Raises:
        InputError: the shape or the number of points is not that of a skeleton.
    """
    shape = tuple(points.shape)
    if len(shape) < 2 or shape[-1] != 3 or shape[-2] not in SKELETONS:
        sizes = " or ".join(map(str, SKELETONS))
        rule = f"of shape (…, k, 3), with k = {sizes} points x, y, confidence"
        raise invalid("keypoints", rule, Shown(f"shape {shape}"))
    return SKELETONS[shape[-2]]
