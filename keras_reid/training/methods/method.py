"""Base of the training methods: settings, and the functions by which they change a training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from keras_reid import data
from keras_reid.skeletons import KEYPOINTS

if TYPE_CHECKING:
    import keras

    from keras_reid.data import AttributeSchema, PersonImages, ReidDataset
    from keras_reid.models.heads import Head

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
    """Columns of training images, as far as a model depends on them.

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
        """Return those of images, with the names of their attributes."""
        points = images.columns.get(KEYPOINTS)
        return cls(
            0 if points is None else points.shape[1],
            schema,
            np.zeros(0) if schema is None else data.rates(images),
        )


class WeightedLoss(NamedTuple):
    """Loss under an output, with its weight."""

    output: str
    loss: "keras.losses.Loss"
    weight: float


class LossSettings(NamedTuple):
    """Settings of a recipe from which methods construct their losses.

    Attributes:
        label_smoothing: label smoothing of identity losses.
        identity_weight: weight of the identity loss.
        metric: the arguments margin, distance and normalize of metric losses that are set.
        gather: compare over all replicas.
    """

    label_smoothing: float
    identity_weight: float
    metric: Mapping[str, Any]
    gather: bool

    def of_metric(self, *names: str) -> dict[str, Any]:
        """Return the arguments of a metric loss among these names that are set, and `gather`."""
        chosen = {name: self.metric[name] for name in names if name in self.metric}
        return {**chosen, "gather": self.gather}


@dataclass(frozen=True)
class Phase:
    """Part of a training.

    Attributes:
        changes: values of the recipe that differ in this phase, by name.
    """

    changes: Mapping[str, Any]

    @contextmanager
    def prepared(self, members: "Sequence[keras.Model]") -> Iterator[None]:
        """Change the models for this phase within the block."""
        yield


@dataclass(frozen=True, kw_only=True)
class Method(Settings):
    """Settings, and the functions that are called where the method is active.

    A method overrides what it changes. The functions receive values, not the recipe.
    """

    columns: ClassVar[tuple[str, ...]] = ()  # that it needs of the images
    embeds: ClassVar[bool] = False  # its embedding takes the place of the neck's

    @property
    def active(self) -> bool:
        """Whether the settings ask for the method."""
        raise NotImplementedError

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise `InputError` if the method does not fit the other values of the recipe."""

    def dataset(self, dataset: "ReidDataset") -> "ReidDataset":
        """Return the data set as the method reads it."""
        return dataset

    def sampled(self, images: "PersonImages") -> "PersonImages":
        """Return the rows from which batches are sampled."""
        return images

    def batches(self, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Return the function that makes batches, and its arguments."""
        return make, arguments

    def model(
        self, backbone: str, num_identities: int | None, image_size: tuple[int, int], **common: Any
    ) -> "keras.Model | None":
        """Return a model of another kind, from the arguments of `models.build`; None: no other."""
        return None

    def heads(self, annotations: Annotations) -> "list[Head]":
        """Return the heads that are added to the backbone."""
        return []

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        """Return the losses with those of the method."""
        return losses

    def load_teacher(
        self, image_size: tuple[int, int], columns: set[str], num_identities: int
    ) -> "keras.Model | None":
        """Return the trained model to learn from, if there is one; also called when inactive.

        Args:
            image_size: (height, width) of the images of the student.
            columns: columns of the images that the student reads.
            num_identities: identities of the images.

        Raises:
            InputError: a teacher without a distillation or the reverse, or one for other images
                or identities.
        """
        return None

    def learner(
        self,
        members: "Sequence[keras.Model]",
        teacher: "keras.Model | None",
        steps_per_epoch: int,
        settings: LossSettings,
    ) -> "tuple[keras.Model, dict[str, Any]] | None":
        """Return the model whose `fit` trains the members, and more arguments of `compile`."""
        return None

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        """Return the phases of the training with those of the method."""
        return phases
