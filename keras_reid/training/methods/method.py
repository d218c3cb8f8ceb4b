"""What a method of training says about itself: its settings, and what it adds to the rest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from keras_reid import data
from keras_reid.skeletons import KEYPOINTS

if TYPE_CHECKING:
    import keras

    from keras_reid.data import AttributeSchema, PersonImages
    from keras_reid.models.heads import Head
    from keras_reid.training.objective import LossTerm
    from keras_reid.training.recipes import Recipe

Check = Callable[..., None]


def setting(meaning: str, check: Check | None = None, **default: Any) -> Any:
    """A field of a recipe or method, which is a flag of the same name.

    Args:
        meaning: the help of the flag.
        check: refuses what it cannot be, a function of `keras_reid.checks` that is called as
            `check(NAME=value)`; None as a value is never refused.
        default: as of `dataclasses.field`.
    """
    about = {"help": meaning, "check": check}
    return field(metadata=about, **default)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values that are checked, each by what its field says."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if (check := one.metadata.get("check")) and value is not None:
                check(**{one.name: value})


@dataclass(frozen=True)
class Annotations:
    """What training images have beside identities and cameras, as far as a model depends on it.

    Attributes:
        keypoints: number of body points; 0: none.
        schema: of the attributes; None: none.
        rates: fraction of the training images that have each attribute.
    """

    keypoints: int = 0
    schema: "AttributeSchema | None" = None
    rates: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, images: "PersonImages", schema: "AttributeSchema | None" = None) -> "Annotations":
        """Those of images, with the names of their attributes."""
        points = images.columns.get(KEYPOINTS)
        return cls(
            0 if points is None else points.shape[1],
            schema,
            np.zeros(0) if schema is None else data.rates(images),
        )


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        recipe: of this phase, which has no other phases.
    """

    recipe: "Recipe"

    @contextmanager
    def prepared(self, members: "Sequence[keras.Model]") -> Iterator[None]:
        """Within the block the models are as this phase trains them."""
        yield


@dataclass(frozen=True, kw_only=True)
class Method(Settings):
    """Settings, and what follows from them where the method is active; the rest is as here."""

    columns: ClassVar[tuple[str, ...]] = ()  # that it needs of the images
    embeds: ClassVar[bool] = False  # its embedding takes the place of the neck's

    @property
    def active(self) -> bool:
        """Whether anything of it is wanted."""
        raise NotImplementedError

    def check(self, recipe: "Recipe") -> None:
        """Refuses what does not go with the rest of the recipe."""

    def model(
        self, recipe: "Recipe", num_identities: int | None, **common: Any
    ) -> "keras.Model | None":
        """A model of its own kind, of the arguments that `models.build` has too; None: no other."""
        return None

    def heads(self, annotations: Annotations) -> "list[Head]":
        """Its heads on the backbone."""
        return []

    def terms(
        self, terms: "list[LossTerm]", recipe: "Recipe", annotations: Annotations
    ) -> "list[LossTerm]":
        """The terms of the objective with its own."""
        return terms

    def phases(self, phases: list[Phase]) -> list[Phase]:
        """The phases of the training with its own."""
        return phases
