"""Exported models in this process: pixels or image files in, embeddings of length 1 out."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid import checks, models
from keras_reid.data.images import PersonImages
from keras_reid.data.inputs import image_parts, pixels_of
from keras_reid.data.pipeline import image_batches
from keras_reid.errors import InputError
from keras_reid.names import expanded
from keras_reid.pixels import decode, graph_resize
from keras_reid.serving import formats
from keras_reid.serving.contract import Contract
from keras_reid.serving.saved_model import INPUTS


class ExportedEmbedder(ABC):
    """`exported(images)` `(b, h, w, 3)` → embeddings `(b, d)`, whatever the format.

    Attributes:
        path: of the version.
        contract: what `export.json` says; None where there is none.
    """

    path: Path
    contract: Contract | None

    @property
    @abstractmethod
    def has_local(self) -> bool:
        """Whether there is a second output, `local`."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """d, the number of components of an embedding."""

    @property
    def fingerprint(self) -> str:
        """Of the model and its preprocessing; galleries ask for it.

        Raises:
            InputError: there is no `export.json`.
        """
        return self._said("a fingerprint").fingerprint

    @property
    def image_size(self) -> tuple[int, int]:
        """(h, w), to which images are resized.

        Raises:
            InputError: there is no `export.json`.
        """
        height, width = self._said("the size of images").image_size
        return height, width

    def _said(self, what: str) -> Contract:
        if self.contract is None:
            raise InputError(
                f"{what} is in export.json, which {self.path} does not have: export the model again"
            )
        return self.contract

    def __call__(self, images: Any) -> np.ndarray:
        """L2-normalized float32 embeddings `(b, d)` of uint8 RGB images `(b, h, w, 3)`.

        Raises:
            InputError: another shape, or pixels that uint8 does not hold.
        """
        return self.outputs(images)["embedding"]

    def outputs(self, images: Any) -> dict[str, np.ndarray]:
        """All outputs by name: `embedding` `(b, d)` and, if exported, `local` `(b, s, c)`.

        A model of several inputs takes the mapping of them instead of images.
        """
        if isinstance(images, Mapping):
            return self._of_inputs(images)
        pixels = checks.pixels(images)
        if pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise InputError(
                f"`images` must be uint8 RGB (b, h, w, 3), got the shape {pixels.shape}."
            )
        return self._of_pixels(tf.convert_to_tensor(pixels))

    def _of_inputs(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        raise InputError(f"{self.path} takes images alone: received {', '.join(inputs)}")

    @abstractmethod
    def _of_pixels(self, images: tf.Tensor) -> dict[str, np.ndarray]: ...

    def from_bytes(self, files: Sequence[bytes]) -> np.ndarray:
        """Embeddings `(b, d)` of the contents of b image files; see `outputs_from_bytes`."""
        return self.outputs_from_bytes(files)["embedding"]

    @abstractmethod
    def outputs_from_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """All outputs by name, of the contents of b image files.

        A file that is damaged or not an image has rows of NaN, and a warning gives its number. A
        SavedModel also has rows of NaN for formats that its signature `serving_bytes` does not
        decode, see `keras_reid.pixels.graph_decode_portable`.
        """

    def embed(self, images: Any, local: bool = False) -> Any:
        """Embeddings `(n, d)` of images; see `embed_files` for many files.

        Args:
            images: n images: a path, a PIL image, a uint8 RGB array `(h, w, 3)` or
                `(b, h, w, 3)` of any size, or an iterable of these, which may be mixed; for a model
                of several inputs an iterable of mappings. Each array is one call of the model.
            local: yield the dict of all outputs.

        Raises:
            InputError: no images, a file that does not decode, pixels that uint8 does not hold, or
                `local` of a model that was exported without.
        """
        self._check_local(local)
        return models.joined([self.outputs(_input(part)) for part in image_parts(images)], local)

    def embed_files(
        self,
        paths: Sequence[str],
        batch_size: int = 16,
        local: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Embeddings `(n, d)` of n image files, `batch_size` of them at a time.

        Args:
            paths: of the files.
            batch_size: files at a time.
            local: yield the dict of `embedding` and `local`.
            progress: called with the number of files done and n.

        Raises:
            InputError: no files, or `local` of a model that was exported without.
            tf.errors.OpError: a file cannot be read: pass images through
                `keras_reid.data.readable` first.
        """
        self._check_local(local)
        parts = []
        for outputs in self._of_files(paths, batch_size):
            parts.append(outputs)
            if progress:
                progress(min(len(parts) * batch_size, len(paths)), len(paths))
        return models.joined(parts, local)

    def _of_files(self, paths: Sequence[str], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """The outputs of each batch, while the next one is decoded."""
        if len(paths):
            images = PersonImages(np.array(paths, str), np.full(len(paths), ""), None)
            for batch in image_batches(images, batch_size, self.image_size):
                yield self._of_pixels(batch)

    def _check_local(self, local: bool) -> None:
        if local and not self.has_local:
            raise InputError(
                f"local features are a second output: {self.path} has none; export it with "
                "local=True",
                "local",
            )


def _input(part: Any) -> Any:
    """Return a mapping of inputs as it is, and an image as a batch (b, h, w, 3)."""
    if isinstance(part, Mapping):
        return part
    pixels = pixels_of(part)
    return pixels[None] if pixels.ndim == 3 else pixels


SEVERAL = ({"images", "keypoints"}, {"clips", "mask"})  # inputs of models that take more


class SavedEmbedder(ExportedEmbedder):
    """An exported SavedModel.

    Args:
        path: a version that `export` wrote.

    Raises:
        InputError: no SavedModel, a broken one, or one with other signatures.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = expanded(path)
        self.contract = Contract.read(self.path)
        if self.contract is not None:
            self.contract.check(self.path)
        signatures = _restore(self.path)
        default = signatures.get("serving_default")
        takes = set(default.structured_input_signature[1]) if default is not None else set()
        self.inputs = takes if takes in SEVERAL else {"images"}
        if takes not in SEVERAL:
            for name, argument in INPUTS.items():
                _check_signature(self.path, signatures.get(name), name, argument)
            self._from_bytes = signatures["serving_bytes"]
        self._from_pixels = default

    @property
    def has_local(self) -> bool:
        return "local" in self._from_pixels.structured_outputs

    @property
    def embedding_width(self) -> int:
        return int(self._from_pixels.structured_outputs["embedding"].shape[-1])

    def _of_pixels(self, images: tf.Tensor) -> dict[str, np.ndarray]:
        return self._of_inputs({"images": images})

    def _of_inputs(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if set(inputs) != self.inputs:
            raise InputError(
                f"{self.path} takes {', '.join(sorted(self.inputs))}: received "
                f"{', '.join(sorted(inputs))}"
            )
        tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        return {name: output.numpy() for name, output in self._from_pixels(**tensors).items()}

    def _of_files(self, paths: Sequence[str], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        self._check_takes_files()
        if self.contract is not None:
            yield from super()._of_files(paths, batch_size)
            return
        for start in range(0, len(paths), batch_size):  # the signature resizes to a size of its own
            block = (decode(path) for path in paths[start : start + batch_size])
            yield models.joined([self._of_pixels(image[None]) for image in block], True)

    def outputs_from_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        self._check_takes_files()
        outputs = self._from_bytes(image_bytes=tf.constant(files, tf.string))
        arrays = {name: output.numpy() for name, output in outputs.items()}
        _warn_of(np.flatnonzero(np.isnan(arrays["embedding"]).any(axis=1)).tolist(), len(files))
        return arrays

    def _check_takes_files(self) -> None:
        if self.inputs != {"images"}:
            raise InputError(
                f"{self.path} takes {', '.join(sorted(self.inputs))}, not files: call "
                "outputs({…}) with them, or use the run it was exported from",
                "run",
            )


class FormatEmbedder(ExportedEmbedder):
    """An export for ONNX Runtime, LiteRT or OpenVINO; images are resized here.

    Args:
        path: a version that `export` wrote.
        contract: of this version.

    Raises:
        InputError: the file is missing or broken, or the package is not installed.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path, self.contract = path, contract
        contract.check(path)  # some programs crash on a shorter file
        try:
            self._run = formats.RUNNERS[contract.format](path)
        except InputError:
            raise
        except Exception as error:
            raise _broken(path, error) from error

    @property
    def has_local(self) -> bool:
        return self._known.local is not None

    @property
    def embedding_width(self) -> int:
        return self._known.embedding_width

    @property
    def _known(self) -> Contract:
        assert self.contract is not None
        return self.contract

    def _of_pixels(self, images: tf.Tensor) -> dict[str, np.ndarray]:
        fits = len(images) and tuple(images.shape[1:3]) == self.image_size
        return self._run(images.numpy()) if fits else self._of_each(images)

    def outputs_from_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        images = {}
        for row, file in enumerate(files):
            with contextlib.suppress(InputError):
                images[row] = decode(file)
        _warn_of([row for row in range(len(files)) if row not in images], len(files))
        outputs = self._of_each(images.values())
        arrays = {
            name: np.full((len(files), *output.shape[1:]), np.nan, np.float32)
            for name, output in outputs.items()
        }
        for name, output in outputs.items():
            arrays[name][list(images)] = output
        return arrays

    def _of_each(self, images: Iterable[Any]) -> dict[str, np.ndarray]:
        resized = [graph_resize(image, self.image_size).numpy() for image in images]
        if resized:
            return self._run(np.stack(resized))
        width, local = self.embedding_width, self._known.local
        empty = {"embedding": np.zeros((0, width), np.float32)}
        return empty if local is None else {**empty, "local": np.zeros((0, *local), np.float32)}


def _warn_of(rows: Sequence[int], count: int) -> None:
    if len(rows):
        logging.warning(
            "%d of %d files do not decode, so that their embeddings are NaN: rows %s",
            len(rows),
            count,
            ", ".join(map(str, rows)),
        )


def load(path: str | os.PathLike[str]) -> ExportedEmbedder:
    """The exported model in the folder `path`, of any format."""
    folder = expanded(path)
    contract = Contract.read(folder)
    if contract is None or contract.format == "saved_model":
        return SavedEmbedder(folder)
    if contract.format not in formats.RUNNERS:
        raise InputError(
            f"exports are of the format saved_model, {', '.join(formats.RUNNERS)}: {folder} is of "
            f"{contract.format!r}; a newer keras_reid may know it"
        )
    return FormatEmbedder(folder, contract)


def _restore(path: Path) -> Any:
    """The signatures by name; they keep the variables alive."""
    if not tf.saved_model.contains_saved_model(str(path)):
        numbers = [
            int(p.parent.name) for p in path.glob("*/saved_model.pb") if p.parent.name.isdecimal()
        ]
        remedy = f"name a version, {path / str(max(numbers))}" if numbers else "check the path"
        raise InputError(
            f"an exported model is a folder with saved_model.pb: {path} has none; {remedy}"
        )
    try:
        return tf.saved_model.load(str(path)).signatures
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [repr(error)])[0][:160]
    return InputError(
        f"an exported model must be complete: {path} cannot be loaded ({reason}); export it again"
    )


def _check_signature(path: Path, function: Any, name: str, argument: str) -> None:
    takes = [] if function is None else list(function.structured_input_signature[1])
    yields = [] if function is None else sorted(function.structured_outputs)
    if takes != [argument] or yields not in (["embedding"], ["embedding", "local"]):
        raise InputError(
            f"an exported model has the signature {name}: {argument} → embedding, but in {path} "
            f"it is {takes} → {yields}; write it with keras_reid.serving.export"
        )
