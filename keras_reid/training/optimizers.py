"""Optimizers: learning rates that differ by variable, and the optimizers of several models."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_reid import checks
from keras_reid.errors import Shown, counted, invalid

SPARED = ("bias", "beta", "gamma")  # variables without weight decay


@keras.saving.register_keras_serializable(package="keras_reid")
class RatedAdam(keras.optimizers.Adam):
    """Adam with the rate `factor · η` for new variables, and 0 for all others in the first steps.

    Layers with random weights on a pretrained network need larger steps: public code of PCB and
    others trains them at ten times the rate. For `frozen` steps only they are trained.

    >>> new, old = keras.Variable([1.0], name="new"), keras.Variable([1.0], name="old")
    >>> optimizer = RatedAdam(0.01, [new.path], factor=10.0)
    >>> optimizer.apply([keras.ops.ones(1)] * 2, [new, old])
    >>> [round(float(variable[0]), 2) for variable in (new, old)]
    [0.9, 0.99]

    Args:
        learning_rate: η, a number or a schedule.
        new: paths of the new variables, `variable.path`.
        factor: factor of their rate, above 0.
        frozen: number of steps without a change of the other variables.
        decay: decoupled weight decay per step in units of each variable's rate (Loshchilov and
            Hutter, arXiv:1711.05101); biases and normalizations have none.
        common: arguments of `keras.optimizers.Adam`.

    Raises:
        InputError: numbers out of range.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        new: Sequence[str] = (),
        factor: float = 1.0,
        frozen: int = 0,
        decay: float = 0.0,
        **common: Any,
    ) -> None:
        checks.above(0, factor=factor)
        checks.at_least(0, frozen=frozen, decay=decay)
        super().__init__(learning_rate, **common)
        self.new, self.factor, self.frozen, self.decay = [*new], factor, frozen, decay

    def build(self, variables: Sequence[Any]) -> None:
        paths = {variable.path for variable in variables}
        missing = [path for path in self.new if path not in paths]
        if missing:
            raise invalid("new", "paths of trainable variables", missing)
        self._is_new = [variable.path in {*self.new} for variable in variables]
        self._decays = [
            self.decay > 0 and variable.path.split("/")[-1] not in SPARED for variable in variables
        ]
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        at = self._get_variable_index(variable)  # as in the documentation of Optimizer
        rate = ops.cast(learning_rate, variable.dtype)
        if self._is_new[at]:
            rate = rate * self.factor
        elif self.frozen:
            rate = ops.where(self.iterations < self.frozen, ops.zeros_like(rate), rate)
        if self._decays[at]:
            self.assign_sub(variable, ops.convert_to_tensor(variable) * rate * self.decay)
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "new": self.new,
            "factor": self.factor,
            "frozen": self.frozen,
            "decay": self.decay,
        }


def new_variables(model: keras.Model) -> list[str]:
    """Return the paths of the trainable variables outside of the backbone, the nested model.

    Args:
        model: model of `models.build`.

    Raises:
        InputError: the model does not have exactly one backbone, as in an ensemble.
    """
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(nested) != 1:
        fix = "Build it with keras_reid.models.build."
        received = Shown(counted(len(nested), "nested model"))
        raise invalid("model", "a model with one backbone", received, fix)
    pretrained = {id(variable) for variable in nested[0].trainable_variables}
    return [v.path for v in model.trainable_variables if id(v) not in pretrained]


class MemberOptimizers:
    """Optimizers of several models, as `model.optimizer` for the callbacks of Keras.

    `ReduceLROnPlateau`, `LearningRateScheduler` and `SwapEMAWeights` change each of `optimizers`.
    """

    built = True

    def __init__(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        self.optimizers = [getattr(one, "inner_optimizer", one) for one in optimizers]
        self.iterations = self.optimizers[0].iterations

    @property
    def learning_rate(self) -> Any:
        """Learning rate of all members.

        Raises:
            InputError: the rates of the members differ.
        """
        rates = [float(ops.convert_to_numpy(one.learning_rate)) for one in self.optimizers]
        if len({*rates}) > 1:
            fix = "Use a schedule of keras.optimizers.schedules in each optimizer."
            raise invalid("learning_rate", "one number for all members", rates, fix)
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        for one in self.optimizers:
            one.learning_rate = rate


def optimizers_of(optimizer: Any, count: int) -> list[keras.optimizers.Optimizer]:
    """Return one optimizer for each of several models.

    Args:
        optimizer: optimizer or name, which is copied, or a list with one for each model.
        count: number of models.

    Raises:
        InputError: the list has another length, or contains an optimizer twice.
    """
    if isinstance(optimizer, str) or not isinstance(optimizer, Sequence):
        first = keras.optimizers.get(optimizer)
        copies = (type(first).from_config(first.get_config()) for _ in range(count - 1))
        optimizer = [first, *copies]
    if not len(optimizer) == len({*map(id, optimizer)}) == count:
        rule = f"one optimizer, or a list of {count} different ones, one for each member"
        raise invalid("optimizer", rule, Shown(f"{len({*map(id, optimizer)})}"))
    return [*optimizer]
