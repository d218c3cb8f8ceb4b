"""An embedder as a SavedModel: pixels or image files in, L2-normalised embeddings out."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_reid import models
from keras_reid.data import PersonImages, image_batches, readable
from keras_reid.data.decode import decode, decode_bytes
from keras_reid.data.pipeline import fitted
from keras_reid.errors import InputError

INPUTS = {"serving_default": "images", "serving_bytes": "image_bytes"}


def export(
    model: keras.Model,
    directory: str | os.PathLike[str],
    version: int | None = None,
    flip: bool = False,
    local: bool = False,
) -> Path:
    """Writes the SavedModel `directory/version/`, which TensorFlow Serving loads, and returns it.

    Two signatures have the output `embedding`, float32 `(b, d)` of length 1, and with `local` a
    second one, `local` `(b, s, c)`, whose stripes are of length 1:
    `serving_default` takes `images`, uint8 RGB `(b, h, w, 3)` of any height and width;
    `serving_bytes` takes `image_bytes`, `(b,)` JPEG, PNG or BMP files of any sizes.
    Both resize as `keras_reid.data.image_batches` does. Loading needs nothing but TensorFlow.

    A version appears complete or not at all, and is never replaced.

    Args:
        model: a model of `keras_reid.models.build`; its classifier is left out.
        directory: holds the versions of one model, and is made if it is missing.
        version: from 1; None takes the one after the last.
        flip: add the embedding of the mirror image, see `keras_reid.models.embed`.
        local: yield the model's output `local`, too; of a model without one,
            `keras_reid.models.stripes(model)` has.

    Raises:
        InputError: the version exists, the folder cannot be made, or the model is no embedder.
    """
    directory = Path(directory).expanduser().absolute()
    module, signatures = _servable(model, flip, local)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        version = _free(directory, version)
        # TensorFlow Serving looks at folders whose names are numbers: it does not see this one.
        with tempfile.TemporaryDirectory(prefix=f".{version}-", dir=directory) as folder:
            staged = Path(folder) / str(version)
            tf.saved_model.save(module, str(staged), signatures=signatures)
            # This fails where another export has put the same version meanwhile.
            return staged.rename(directory / str(version))
    except OSError as error:
        raise InputError(
            f"versions are written to a folder: {directory} cannot take one "
            f"({error.strerror or error}); name another folder"
        ) from error


def _free(directory: Path, version: int | None) -> int:
    """The version to write: the given one, if it is free, or the one after the last."""
    taken = {int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()}
    if version is None:
        return max(taken, default=0) + 1
    if version < 1:
        raise InputError(f"a version is a number from 1: received {version}")
    if version in taken:
        raise InputError(
            f"a version is never overwritten, but {directory / str(version)} exists: give another "
            f"one or none, which makes it {max(taken) + 1}"
        )
    return version


def _servable(model: keras.Model, flip: bool, local: bool) -> tuple[tf.Module, dict[str, Any]]:
    """The variables that the outputs depend on, and the functions that compute them."""
    net = models.outputs_at_test(model, local)
    embed = models.unit_outputs(net, flip)
    size = _image_size(model)
    pixels = tf.TensorSpec((*size, 3), tf.uint8)
    module = tf.Module()
    # The variables and not the Keras layers: what is saved then consists of TensorFlow alone.
    module.weights = [variable.value for variable in net.variables]

    def embedding(images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # Fused convolutions fail on an empty batch: it gets one black image, which is cut off.
        images = tf.pad(images, [(0, tf.cast(count == 0, tf.int32)), (0, 0), (0, 0), (0, 0)])
        return {name: output[:count] for name, output in embed(images).items()}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return embedding(
            tf.map_fn(lambda image: fitted(image, size), images, fn_output_signature=pixels)
        )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serving_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return embedding(
            tf.map_fn(
                lambda file: fitted(decode_bytes(file), size),
                image_bytes,
                fn_output_signature=pixels,
            )
        )

    return module, {"serving_default": serving_default, "serving_bytes": serving_bytes}


def _image_size(model: keras.Model) -> tuple[int, int]:
    height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise InputError(
            f"images are resized to the size that the model was built for: received a model for "
            f"{height}×{width} pixels; build it with a fixed image_size"
        )
    return height, width


class SavedEmbedder:
    """An exported model in this process: `saved(images)` `(b, h, w, 3)` → embeddings `(b, d)`.

    Args:
        path: a version that `export` wrote.

    Raises:
        InputError: no SavedModel, a broken one, or one with other signatures.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        signatures = _restore(self.path)
        for name, argument in INPUTS.items():
            _check_signature(self.path, signatures.get(name), name, argument)
        self._from_pixels, self._from_bytes = (signatures[name] for name in INPUTS)

    @property
    def has_local(self) -> bool:
        """Whether there is a second output, `local`."""
        return "local" in self._from_pixels.structured_outputs

    @property
    def embedding_width(self) -> int:
        """d, the number of components of an embedding."""
        return int(self._from_pixels.structured_outputs["embedding"].shape[-1])

    def __call__(self, images: Any) -> np.ndarray:
        """L2-normalised float32 embeddings `(b, d)` of uint8 RGB images `(b, h, w, 3)`."""
        return self.outputs(images)["embedding"]

    def outputs(self, images: Any) -> dict[str, np.ndarray]:
        """All outputs by name: `embedding` `(b, d)` and, if exported, `local` `(b, s, c)`."""
        images = tf.convert_to_tensor(images)
        if images.dtype != tf.uint8 or images.shape.rank != 4 or images.shape[-1] != 3:
            raise InputError(
                "images are uint8 RGB (b, h, w, 3): received "
                f"{images.dtype.name} {tuple(images.shape)}"
            )
        return {name: output.numpy() for name, output in self._from_pixels(images=images).items()}

    def from_bytes(self, files: Sequence[bytes]) -> np.ndarray:
        """Embeddings `(b, d)` of the contents of b image files; see `outputs_from_bytes`."""
        return self.outputs_from_bytes(files)["embedding"]

    def outputs_from_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """All outputs by name, of the contents of b image files.

        Raises:
            tf.errors.InvalidArgumentError: a file is no image, or a broken one.
        """
        outputs = self._from_bytes(image_bytes=tf.constant(files, tf.string))
        return {name: output.numpy() for name, output in outputs.items()}

    def embed(self, batches: Iterable[Any], local: bool = False) -> Any:
        """Embeddings `(n, d)` of batches of images, as `keras_reid.models.embed` yields them.

        With `local` the dict of all outputs; see `embed_files`.
        """
        self._check_local(local)
        return models.joined([self.outputs(images) for images in batches], local)

    def embed_files(self, paths: Sequence[str], batch_size: int = 64, local: bool = False) -> Any:
        """Embeddings `(n, d)` of n image files, `batch_size` of them at a time.

        Args:
            paths: of the files.
            batch_size: files at a time.
            local: yield the dict of `embedding` and `local`.

        Raises:
            InputError: no files, or `local` of a model that was exported without.
            OSError, tf.errors.InvalidArgumentError: a file cannot be read: pass images through
                `keras_reid.data.readable` first.
        """
        self._check_local(local)
        blocks = (paths[i : i + batch_size] for i in range(0, len(paths), batch_size))
        parts = [self.outputs_from_bytes([Path(p).read_bytes() for p in b]) for b in blocks]
        return models.joined(parts, local)

    def _check_local(self, local: bool) -> None:
        if local and not self.has_local:
            raise InputError(
                f"local features are a second output: {self.path} has none; export it with "
                "local=True (--local)"
            )


def load(path: str | os.PathLike[str]) -> SavedEmbedder:
    """The exported model in the folder `path`; see `SavedEmbedder`."""
    return SavedEmbedder(path)


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
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:160]
        raise InputError(
            f"an exported model must be complete: {path} cannot be loaded ({reason}); "
            "export it again"
        ) from error


def _check_signature(path: Path, function: Any, name: str, argument: str) -> None:
    takes = [] if function is None else list(function.structured_input_signature[1])
    yields = [] if function is None else sorted(function.structured_outputs)
    if takes != [argument] or yields not in (["embedding"], ["embedding", "local"]):
        raise InputError(
            f"an exported model has the signature {name}: {argument} → embedding, but in {path} "
            f"it is {takes} → {yields}; write it with keras_reid.serving.export"
        )


@dataclass(frozen=True)
class ParityReport:
    """How far an exported model is from its original.

    Attributes:
        max_difference: largest absolute difference of one component of an embedding, or local
            feature, of length 1, over both signatures; infinite when the widths differ.
        images: how many were compared.
        tolerance: the largest difference that is `ok`.
    """

    max_difference: float
    images: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether they agree; a difference that is no number is no agreement."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"parity {'ok' if self.ok else 'FAILED'}: largest difference {self.max_difference:.2g} "
            f"over {self.images} images, at most {self.tolerance:.2g} is allowed"
        )


def parity(
    model: keras.Model,
    saved_model: str | os.PathLike[str],
    images: PersonImages | np.ndarray,
    tolerance: float = 1e-4,
    flip: bool = False,
) -> ParityReport:
    """`max |saved(image) − embed(model, image)|` over images and both signatures of the SavedModel.

    All outputs of the SavedModel are compared. The model sees what evaluation shows it. The
    SavedModel sees each image in its own size, as pixels and as a file.

    Args:
        model: the original, a model of `keras_reid.models.build`.
        saved_model: the folder that `export` returned.
        images: n images on disk, or uint8 pixels `(n, h, w, 3)`, which are packed as PNG.
        tolerance: the largest difference that is `ok`.
        flip: as in `export`.

    Raises:
        InputError: `saved_model` cannot be loaded, or there are no readable images.
    """
    saved = load(saved_model)
    size = _image_size(model)
    local = saved.has_local
    if isinstance(images, PersonImages):
        images = readable(images)
        batches = image_batches(images, 32, size)
        received = (
            saved.embed((decode(path)[None] for path in images.path.tolist()), local),
            saved.embed_files(images.path.tolist(), 32, local),
        )
    else:
        batches = [np.stack([fitted(image, size) for image in images])] if len(images) else []
        received = (
            saved.embed((image[None] for image in images), local),
            saved.outputs_from_bytes([tf.io.encode_png(image).numpy() for image in images]),
        )
    expected = models.Embedder(model, flip, local)(batches)
    difference = np.max([_difference(expected, outputs) for outputs in received])
    return ParityReport(float(difference), len(images), tolerance)


def _difference(a: Any, b: Any) -> float:
    """The largest between arrays of the same names."""
    a, b = (x if isinstance(x, dict) else {"embedding": x} for x in (a, b))
    if any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    return max(float(np.max(np.abs(a[name] - b[name]))) for name in a)
