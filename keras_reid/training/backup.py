"""Backup of a training run in one file, with optimizers and seeds."""

import math
from pathlib import Path
from typing import Any

import keras

from keras_reid import replicas
from keras_reid.io import check_room, parsing, replaced_file
from keras_reid.training.edges import members_of

HDF5_BYTES = 4096  # overhead of an array


class SavedSeeds:
    """Base of models that save the states of their seeds, which Keras leaves out.

    Otherwise, a resumed training run with dropout would repeat its first noise.
    """

    def save_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            store[str(number)] = seed.numpy()

    def load_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            seed.assign(store[str(number)])

    def _seeds(self: Any) -> list[Any]:
        others = {id(variable) for variable in (*self.weights, *self.metrics_variables)}
        return [variable for variable in self.variables if id(variable) not in others]


class TrainingState(SavedSeeds, keras.Model):
    """State of a training run: weights, optimizers and seeds of a model."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model
        self.built = True


class Backup(keras.callbacks.Callback):
    """Callback that saves weights and optimizer in one file after each epoch, to resume a run.

    The file is replaced atomically, so that one backup remains whenever the process is killed.
    (`keras.callbacks.BackupAndRestore` writes weights and epoch to two files; a kill between them
    repeats an epoch.) The epoch is the number of optimizer steps divided by the steps of an epoch.

    Args:
        path: file name that ends with `.weights.h5`.
        steps: number of steps of an epoch.
    """

    def __init__(self, path: str | Path, steps: int) -> None:
        super().__init__()
        self.path = Path(path)
        self.steps = steps

    def restore(self, model: keras.Model) -> int:
        """Load the backup, if it exists, and return the next epoch.

        Args:
            model: compiled model or `MutualLearner`, built as for the backup.

        Returns:
            The index of the next epoch; 0 if there is no backup.

        Raises:
            InputError: the backup is of another model.
        """
        if not self.path.exists():
            return 0
        members = [*members_of(model).values()]
        for member in members:
            if not member.optimizer.built:
                with replicas.scope(member):
                    member.optimizer.build(member.trainable_variables)
        fix = "Use the flags of the first start, or another run folder."
        with parsing(self.path, "be a backup of this model", fix, Exception):
            TrainingState(model).load_weights(self.path)
        return int(members[0].optimizer.iterations.numpy()) // self.steps

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        variables = list(self.model.variables)
        for member in members_of(self.model).values():
            variables += member.optimizer.variables
        sizes = (math.prod(variable.shape) for variable in variables)
        check_room(self.path, sum(4 * size + HDF5_BYTES for size in sizes))
        with replaced_file(self.path) as new:
            TrainingState(self.model).save_weights(new)
