"""The points of a body by name, and what the mirror does to them."""

from dataclasses import dataclass
from typing import Any

from keras_reid.errors import InputError

KEYPOINTS = "keypoints"  # the column of images, and the input of models
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# The head, and the left and right of each limb.
PARTS = ("head", *(f"{side}_{limb}" for limb in LIMBS for side in ("left", "right")))


@dataclass(frozen=True)
class Skeleton:
    """The points of a body by name; what is no limb belongs to the head."""

    names: tuple[str, ...]

    @property
    def mirror(self) -> tuple[int, ...]:
        """For each point the number of the one that it becomes in the mirror."""
        swapped = {"left": "right", "right": "left"}
        other = (
            "_".join(swapped.get(word, word) for word in name.split("_")) for name in self.names
        )
        return tuple(self.names.index(name) for name in other)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The points of each of the 13 `PARTS` (Wang et al., HOReID, CVPR 2020)."""
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
    """The skeleton of points (…, k, 3), by k.

    Raises:
        InputError: another number of points, or no (…, k, 3).
    """
    shape = tuple(points.shape)
    if len(shape) < 2 or shape[-1] != 3 or shape[-2] not in SKELETONS:
        raise InputError(
            f"keypoints are (…, k, 3) of {' or '.join(map(str, SKELETONS))} points (x, y, "
            f"confidence): received the shape {shape}"
        )
    return SKELETONS[shape[-2]]
