"""Base class of all losses: the label that a loss reads, its name in the logs, its dtype."""

import inspect
from typing import Any

import keras

from keras_reid.losses.registry import loss_name

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ReidLoss(keras.losses.Loss):
    """Loss that names the label and the outputs of a `keras_reid.models.ReidModel` that it reads.

    `get_config` returns each argument of a constructor, of the class and its bases, that is stored
    as an attribute of the same name.

    Args:
        label: key of the labels that the outputs are compared with; None: the label with the name
            of the output, else `"identity"`.
        reduction: as in `keras.losses.Loss`.
        name: name in the logs; None: the name of the class, as in `triplet_hard`.
        dtype: dtype of the computation.

    Attributes:
        outputs: names of the outputs that the loss reads as a tuple; empty: the single output
            under which it is listed.
    """

    outputs: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        label: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        super().__init__(name or loss_name(type(self).__name__), reduction, dtype)
        self.label = label

    def get_config(self) -> dict[str, Any]:
        constructors = [cls.__init__ for cls in type(self).__mro__ if issubclass(cls, ReidLoss)]
        arguments = {
            argument.name
            for constructor in constructors
            for argument in inspect.signature(constructor).parameters.values()
            if argument.kind in NAMED and hasattr(self, argument.name)
        }
        save = keras.saving.serialize_keras_object
        own = {name: save(getattr(self, name)) for name in sorted(arguments)}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ReidLoss":
        load = keras.saving.deserialize_keras_object
        return cls(**{name: load(v) if isinstance(v, dict) else v for name, v in config.items()})
