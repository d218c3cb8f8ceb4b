"""First layers of all models: images to pixels, and maps to one vector."""

from collections.abc import Collection
from typing import Any

import keras

from keras_reid import checks
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
    """Check sizes and choices.

    Args:
        image_size: (height, width) in pixels.
        width: size of the features; None: that of the backbone.
        num_identities: number of classes; None: no classifier.
        chosen: names of `CHOICES`.

    Raises:
        InputError: a size below 1, or an unknown choice.
    """
    for argument, name in chosen.items():
        checks.one_of(CHOICES[argument], **{argument: name})
    if num_identities is not None:
        checks.at_least(1, "None: no classifier.", num_identities=num_identities)
    if width is not None:
        checks.at_least(1, "None: the size of the backbone.", width=width)
    checks.at_least(1, "Pass (height, width) in pixels.", image_size=min(image_size))


def pixels(images: Any) -> Any:
    """Convert uint8 images `(b, h, w, 3)` to float32, 0 to 255."""
    return keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(images)


def pooled(maps: Any, pooling: str, width: int | None) -> Any:
    """Pool maps `(b, h, w, c)` to `(b, c)`, or to `(b, width)` by a linear layer."""
    x = POOLINGS[pooling](name="pool")(maps)
    return x if width is None else keras.layers.Dense(width, use_bias=False, name="width")(x)
