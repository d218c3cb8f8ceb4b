"""Embedder that runs an ONNX, OpenVINO or LiteRT file."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.inference.embedder import Embedder
from keras_reid.inference.fingerprints import file_fingerprint
from keras_reid.inference.metadata import Metadata
from keras_reid.inference.preprocessing import Preprocessing, preprocessing_of
from keras_reid.inference.runtimes import BLOCK, Network
from keras_reid.inference.sources import Source

if TYPE_CHECKING:
    from keras_reid.inference.keras_model import KerasEmbedder


class NetworkEmbedder(Embedder):
    """Embedder of a network file: of an export, or of another program.

    Args:
        source: the file, or the folder of an export, as passed to `load`.
        file: the network file.
        network: the opened file.
        metadata: metadata of an export; None for other files.
        settings: see `preprocessing_of`.

    Raises:
        InputError: a network that does not embed images, or missing settings.
    """

    fingerprint = ""

    def __init__(
        self,
        source: Source,
        file: Path,
        network: Network,
        metadata: Metadata | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.source = source
        self.network = network
        self._threads = ThreadPoolExecutor(os.cpu_count())
        if metadata is None:
            self.preprocessing = preprocessing_of(
                str(source), network.shape, network.dtype, network.stored, settings
            )
            self._embedding = _embedding_name(source, network.outputs)
            self.fingerprint = file_fingerprint(_files(file), self.preprocessing)
        else:
            height, width = metadata.image_size
            self.preprocessing = Preprocessing((height, width))
            self._embedding = "embedding"
            self.fingerprint = metadata.fingerprint
            self.available = network.outputs
        self.image_size = self.preprocessing.input_size
        black = np.zeros((1, *self.image_size, 3), np.uint8)
        self.embedding_dim = self.run(black)["embedding"].shape[1]

    def keras(self) -> "KerasEmbedder | None":
        from keras_reid.inference.loading import load_embedder

        if not self.source.is_keras:
            return None
        return load_embedder(self.source, "keras", flip=self.flip, member=self.member).keras()

    def select(self, *outputs: str) -> Embedder:
        if self.source.is_keras and not {*outputs} <= {*self.available}:
            keras = self.keras()
            return self if keras is None else keras.select(*outputs)
        return super().select(*outputs)

    def pooled(self, stripes: int | None = None) -> Embedder:
        keras = self.keras()
        return self if keras is None else keras.pooled(stripes)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        pixels = self.preprocessing(checks.pixels(inputs))
        outputs = self._outputs(pixels)
        embedding = outputs.pop(self._embedding).reshape(len(pixels), -1).astype(np.float32)
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        outputs["embedding"] = embedding / np.maximum(length, 1e-12)
        return {name: outputs[name] for name in self.outputs}

    def _outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for any number of inputs, which run in blocks in parallel threads.

        The last block of a network of a fixed batch size is padded with its last image.
        """
        network, count = self.network, len(pixels)
        size = network.shape[0] or (BLOCK if network.parallel else max(1, count))
        if network.shape[0]:
            rows = np.arange(-(-count // size) * size)
            pixels = pixels[np.minimum(rows, count - 1)]
        blocks = [pixels[start : start + size] for start in range(0, max(1, len(pixels)), size)]
        run = self._threads.map if network.parallel and len(blocks) > 1 else map
        parts = list(run(network.run, blocks))
        return {
            name: np.concatenate([part[name] for part in parts])[:count] for name in network.outputs
        }


def _embedding_name(source: Source, outputs: tuple[str, ...]) -> str:
    if "embedding" in outputs:
        return "embedding"
    if len(outputs) != 1:
        raise InputError(
            f"{source} must have one output, or one named embedding, got {', '.join(outputs)}. "
            "Remove the others."
        )
    return outputs[0]


def _files(file: Path) -> list[Path]:
    """Return the files of a network: `.bin` of `.xml`, and external weights of `.onnx`."""
    weights = [file.with_suffix(".bin"), *(Path(f"{file}{end}") for end in (".data", "_data"))]
    return [file, *(other for other in weights if other.is_file())]
