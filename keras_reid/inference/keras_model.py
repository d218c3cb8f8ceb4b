"""Embedder that runs a Keras model in this process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import checks, models
from keras_reid.inference.embedder import ONLY_EMBEDDING, Embedder
from keras_reid.inference.fingerprints import fingerprint
from keras_reid.inference.sources import Source

if TYPE_CHECKING:
    import keras


class KerasEmbedder(Embedder):
    """Embedder of a Keras model; later changes of its weights are used.

    Args:
        model: a model of `models.build`, or any functional or sequential model with an output
            `embedding` (b, d) or a single output (b, d).
        flip: see `models.unit_outputs`.
        outputs: names of the returned outputs; see `Embedder`.
        source: the origin of the model.

    Raises:
        InputError: a model without these outputs.
    """

    def __init__(
        self,
        model: "keras.Model",
        flip: bool = False,
        outputs: Sequence[str] = ONLY_EMBEDDING,
        source: Source | None = None,
    ) -> None:
        import keras
        import tensorflow as tf

        self.model = model
        self.flip = flip
        self.outputs = tuple(outputs)
        self.source = source or Source("memory", model.name)
        net = models.outputs_at_test(model, self.outputs)
        self.image_size = models.image_size(net)
        self.inputs = frozenset(models.input_names(net))
        self._single = not isinstance(net.input, dict)
        inputs = {"images": net.input} if self._single else net.input
        self._dtypes = {name: x.dtype for name, x in inputs.items()}
        specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), net.input)
        output = getattr(model, "output", None)  # a Sequential model that was not called has none
        self.available = tuple(output) if isinstance(output, dict) else ONLY_EMBEDDING
        self.embedding_dim = int(net.output["embedding"].shape[-1])
        unit = models.unit_outputs(net, flip)
        self._step = tf.function(unit, input_signature=[specs], autograph=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model, self.flip)

    def select(self, *outputs: str) -> "KerasEmbedder":
        if outputs == self.outputs:
            return self
        other = KerasEmbedder(self.model, self.flip, outputs, self.source)
        other.calibration = self.calibration
        return other

    def keras(self) -> "KerasEmbedder":
        return self

    def pooled(self, stripes: int | None = None) -> "KerasEmbedder":
        view = models.stripes(self.model, stripes)
        return KerasEmbedder(view, self.flip, ("embedding", "local"), self.source)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        if not isinstance(inputs, Mapping):
            inputs = {"images": inputs}
        values = {k: _lossless(v, self._dtypes.get(k), k) for k, v in inputs.items()}
        prepared = values["images"] if self._single else values
        return {name: output.numpy() for name, output in self._step(prepared).items()}


def _lossless(values: Any, dtype: str | None, name: str) -> Any:
    """Return the values of an input in the type of the model.

    Raises:
        InputError: pixels that uint8 does not hold.
    """
    if dtype is None or getattr(getattr(values, "dtype", None), "name", None) == dtype:
        return values
    if dtype == "uint8":
        return checks.pixels(values, name)
    import keras

    return keras.ops.cast(values, dtype)
