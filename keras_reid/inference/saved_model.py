"""Embedder that runs an exported SavedModel by TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, first_line
from keras_reid.inference.embedder import Embedder
from keras_reid.inference.fingerprints import file_fingerprint
from keras_reid.inference.metadata import Metadata
from keras_reid.inference.sources import Source

SIGNATURES = {"serving_default": "images", "serving_bytes": "image_bytes"}
SEVERAL = ({"images", "keypoints"}, {"clips", "mask"})  # inputs of models that take more


class SavedModelEmbedder(Embedder):
    """Embedder of an exported SavedModel.

    Args:
        source: the folder that `serving.export` wrote.
        metadata: of the export; None without `export.json`.
        input_size: (h, w) for a SavedModel without `export.json`.

    Attributes:
        signatures: functions by name, as a server calls them.

    Raises:
        InputError: a broken SavedModel, one with other signatures, or an unknown image size.
    """

    fingerprint = ""

    def __init__(
        self, source: Source, metadata: Metadata | None, input_size: tuple[int, int] | None = None
    ) -> None:
        self.source = source
        self.signatures = _signatures(source.path)
        self._default = self.signatures.get("serving_default")
        takes = set() if self._default is None else {*self._default.structured_input_signature[1]}
        if takes in SEVERAL:
            self.inputs = frozenset(takes)
        else:
            for name, argument in SIGNATURES.items():
                _check_signature(source, self.signatures.get(name), name, argument)
        outputs = self._default.structured_outputs
        self.available = tuple(outputs)
        self.embedding_dim = int(outputs["embedding"].shape[-1])
        if metadata is None:
            if input_size is None:
                raise InputError(
                    f"`input_size` must be given for {source}, which has no export.json. Give "
                    "input_size=(height, width), or export the model again.",
                    "input_size",
                )
            self.image_size = input_size
            files = sorted(file for file in source.path.rglob("*") if file.is_file())
            self.fingerprint = file_fingerprint(files, input_size)
        else:
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


def _signatures(path: Path) -> Any:
    """Return the signatures by name; they keep the variables alive."""
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path)).signatures
    except Exception as error:
        raise InputError(
            f"an exported model must be complete: {path} cannot be loaded ({first_line(error)}); "
            "export it again"
        ) from error


def _check_signature(source: Source, function: Any, name: str, argument: str) -> None:
    takes = [] if function is None else list(function.structured_input_signature[1])
    yields = [] if function is None else sorted(function.structured_outputs)
    if takes != [argument] or yields not in (["embedding"], ["embedding", "local"]):
        raise InputError(
            f"an exported model has the signature {name}: {argument} → embedding, but in {source} "
            f"it is {takes} → {yields}; write it with keras_reid.serving.export"
        )
