"""Embedder that runs an exported SavedModel by TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.inference.embedder import Embedder
from keras_reid.inference.metadata import Metadata
from keras_reid.inference.sources import Source
from keras_reid.io import parsing

SIGNATURES = {"serving_default": "images", "serving_bytes": "image_bytes"}


class SavedModelEmbedder(Embedder):
    """Embedder of an exported SavedModel.

    Args:
        source: the folder that `serving.export` wrote.
        metadata: metadata of the export.

    Attributes:
        signatures: functions that a server calls, by name.

    Raises:
        InputError: a SavedModel that TensorFlow cannot load.
    """

    fingerprint = ""

    def __init__(self, source: Source, metadata: Metadata) -> None:
        import tensorflow as tf

        self.source = source
        with parsing(source, "be a SavedModel", "Export it again.", Exception):
            # The signatures keep the variables alive.
            self.signatures = tf.saved_model.load(str(source.path)).signatures
        self._default = self.signatures["serving_default"]
        self.inputs = frozenset(self._default.structured_input_signature[1])
        self.available = tuple(self._default.structured_outputs)
        self.embedding_dim = metadata.embedding_dim
        height, width = metadata.image_size
        self.image_size = height, width
        self.fingerprint = metadata.fingerprint

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        import tensorflow as tf

        if not isinstance(inputs, Mapping):
            inputs = {"images": checks.pixels(inputs)}
        tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        outputs = self._default(**tensors)
        return {name: outputs[name].numpy() for name in self.outputs}
