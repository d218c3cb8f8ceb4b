"""Base of the training methods: settings, and functions that change a training run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from keras_reid import checks, data
from keras_reid.skeletons import KEYPOINTS
from keras_reid.training.teachers import TEACHER

if TYPE_CHECKING:
    import keras

    from keras_reid.data import AttributeSchema, PersonImages, ReidDataset
    from keras_reid.inference import Embedder
    from keras_reid.models.heads import Head

Check = Callable[..., None]
Factory = tuple[Callable[..., Any], dict[str, Any]]  # a function and its keyword arguments


def setting(
    meaning: str,
    check: Check | None = None,
    *,
    least: float | None = None,
    interval: str = "",
    choices: Iterable[str] = (),
    **default: Any,
) -> Any:
    """Return a field of a recipe or method, which is a flag of the same name.

    Args:
        meaning: help of the flag.
        check: called as `check(NAME=value)` for all values except None.
        least: instead of a check, the smallest number.
        interval: instead of a check, the bounds of a number, such as `"[0, 1)"`.
        choices: instead of a check, the allowed values.
        default: `default` or `default_factory`, as in `dataclasses.field`.
    """
    if least is not None:
        check = partial(checks.at_least, least)
    if interval:
        check = partial(checks.within, interval)
    if choices:
        check = partial(checks.one_of, choices)
    return field(metadata={"help": meaning, "check": check}, **default)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of settings: each value is checked by the check of its field."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if (check := one.metadata.get("check")) and value is not None:
                check(**{one.name: value})


@dataclass(frozen=True)
class Annotations:
    """Columns of the training images that a model requires.

    Attributes:
        keypoints: number of body points; 0: none.
        schema: schema of the attributes; only for images with a column "attributes".
        rates: fraction of the training images with each attribute.
        teacher: embedding size of a teacher whose embeddings are labels; 0: none.
    """

    keypoints: int = 0
    schema: "AttributeSchema" = None  # type: ignore[assignment]
    rates: np.ndarray = field(default_factory=lambda: np.zeros(0))
    teacher: int = 0

    @classmethod
    def of(
        cls,
        images: "PersonImages",
        schema: "AttributeSchema | None" = None,
        teacher: "Embedder | None" = None,
    ) -> "Annotations":
        """Return the annotations of images.

        Args:
            images: training images.
            schema: schema of their column "attributes"; None if there is no such column.
            teacher: embedder of their views; None: the column "teacher", if there is one.
        """
        columns = images.columns
        points = columns[KEYPOINTS].shape[1] if KEYPOINTS in columns else 0
        size = columns[TEACHER].shape[1] if TEACHER in columns else 0
        size = size if teacher is None else teacher.embedding_dim
        if schema is None:
            return cls(points, teacher=size)
        return cls(points, schema, data.rates(images), size)


class Term(NamedTuple):
    """Term of the total loss: loss of an output, with its weight."""

    output: str
    loss: "keras.losses.Loss"
    weight: float


class LossSettings(NamedTuple):
    """Settings of a recipe for the losses of methods.

    Attributes:
        label_smoothing: label smoothing of identity losses.
        identity_weight: weight of the identity loss.
        metric: the arguments margin, distance and normalize of metric losses; None: not set.
        annotations: annotations of the training images.
        gather: compare over all replicas.
    """

    label_smoothing: float
    identity_weight: float
    metric: Mapping[str, Any]
    annotations: Annotations
    gather: bool

    def of_metric(self, *names: str) -> dict[str, Any]:
        """Return the arguments of a metric loss among these names that are set, and `gather`."""
        chosen = {name: self.metric[name] for name in names if self.metric[name] is not None}
        return {**chosen, "gather": self.gather}


@dataclass(frozen=True)
class Phase:
    """Part of a training run.

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
    """Settings, and functions that are called if the method is active.

    A method overrides the functions that it changes. Their parameters, instead of the recipe:

    - annotations: columns of the training images.
    - factory: a function of the images, and its keyword arguments.
    - settings: `LossSettings` for losses, else all values of the recipe by name.
    """

    columns: ClassVar[tuple[str, ...]] = ()  # required columns of the images
    embeds: ClassVar[bool] = False  # whether its output replaces the embedding of the neck

    @property
    def unlabeled(self) -> bool:
        """True if the method trains on images without identity."""
        return False

    @property
    def active(self) -> bool:
        """True if the settings select the method."""
        raise NotImplementedError

    @property
    def fixed(self) -> Mapping[str, Any]:
        """Values of other settings that the method requires, by name."""
        return {"softmax": "plain", "embedding": "neck"} if self.embeds else {}

    def dataset(self, dataset: "ReidDataset") -> "ReidDataset":
        """Return the data set as the method reads it."""
        return dataset

    def sampled(self, images: "PersonImages") -> "PersonImages":
        """Return the rows for the batches."""
        return images

    def batches(self, factory: Factory) -> Factory:
        """Return the function of the training images that makes batches, and its arguments."""
        return factory

    def model(self, *sizes: Any, **common: Any) -> "keras.Model | None":
        """Return the model of this method, or None for the usual model of `models.build`.

        Args:
            sizes: backbone, number of identities and image size, as in `models.build`.
            common: other arguments of `models.build`.
        """
        return None

    def extended(self, model: "keras.Model", annotations: Annotations) -> "keras.Model":
        """Return the model with further outputs for the losses of the method."""
        return model

    def heads(self, annotations: Annotations) -> "list[Head]":
        """Return the heads that are added to the backbone."""
        return []

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        """Return the terms of the loss, changed by the method."""
        return terms

    def evaluation(self, factory: Factory) -> Factory:
        """Return the function that makes the scoring callback, and its arguments.

        The callback has the functions `score`, `summary` and `calibration` of
        `RetrievalEvaluation`.
        """
        return factory

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        """Return the phases of a training run, changed by the method."""
        return phases
