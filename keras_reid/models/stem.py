"""What all models begin with: images to pixels, and maps to one vector."""

from collections.abc import Collection
from typing import Any

import keras

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.models.registry import CLASSIFIERS, EMBEDDINGS, NECKS, POOLINGS

CHOICES: dict[str, Collection[str]] = {
    "pooling": POOLINGS,
    "neck": NECKS,
    "embedding": EMBEDDINGS,
    "classifier": CLASSIFIERS,
}


def check(
    image_size: tuple[int, int], width: int | None, num_identities: int | None = 1, **chosen: str
) -> None:
    """Sizes are at least 1 and choices known.

    Args:
        image_size: (height, width) in pixels.
        width: of the features; None: the backbone's own.
        num_identities: of a classifier; None: there is none.
        chosen: names of `CHOICES`.

    Raises:
        InputError: what it says.
    """
    for what, name in chosen.items():
        checks.one_of(CHOICES[what], **{what: name})
    if num_identities is not None:
        checks.at_least(1, "or None for no classifier", num_identities=num_identities)
    if width is not None:
        checks.at_least(1, "or None for the backbone's own", width=width)
    if min(image_size) < 1:
        raise InputError(f"image_size is at least 1 each way: received {image_size}")


def pixels(images: Any) -> Any:
    """uint8 images `(b, h, w, 3)` as float32, 0 to 255."""
    return keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(images)


def pooled(maps: Any, pooling: str, width: int | None) -> Any:
    """Maps `(b, h, w, c)` → `(b, c)`, or `(b, width)` behind a linear map."""
    x = POOLINGS[pooling](name="pool")(maps)
    return x if width is None else keras.layers.Dense(width, use_bias=False, name="width")(x)
