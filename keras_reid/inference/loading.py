"""`load`: an embedder, or a pair verifier, of a model of any format."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid import checks, models
from keras_reid.errors import InputError
from keras_reid.inference.embedder import ONLY_EMBEDDING, Embedder
from keras_reid.inference.sources import Source
from keras_reid.io import parsing
from keras_reid.names import StrPath

if TYPE_CHECKING:
    import keras

    from keras_reid.inference.pair_verifier import PairVerifier

# Runtimes of the files, the default one first.
RUNTIMES: dict[str, tuple[str, ...]] = {
    ".onnx": ("onnx", "openvino"),
    ".xml": ("openvino",),
    ".tflite": ("litert", "openvino"),
}
SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
}  # file suffixes of exports by format


# One function loads every kind of model; its options are the flags of the commands.
def load(
    source: "StrPath | Source | keras.Model" = "pretrained",
    runtime: str = "auto",
    *,
    outputs: Sequence[str] = ONLY_EMBEDDING,
    flip: bool | None = None,
    member: str = "1",
    input_size: Sequence[int] | None = None,
    channel_order: str | None = None,
    scale: float | Sequence[float] | None = None,
    mean: float | Sequence[float] | None = None,
    layout: str | None = None,
) -> "Embedder | PairVerifier":
    """Return the embedder of a model, or the pair verifier of a model that compares pairs.

    A network of another program, in an `.onnx`, `.xml` or `.tflite` file, has one input of 3
    channels and one output. The rows of the output are L2-normalized. The input is
    `(pixel - mean) / scale`. Settings that the file contains can be omitted. Examples are the
    size and layout of a fixed input shape, and the normalization that OpenVINO's converter put
    into the graph.

    Args:
        source: a run folder, the folder of an export, a `.keras`, `.onnx`, `.xml` or `.tflite`
            file, the name of a pretrained model, or a Keras model in memory.
        runtime: "auto", or one of "keras", "saved_model", "onnx", "openvino" and "litert" that
            runs the source: OpenVINO also runs `.onnx` and `.tflite` files. Pretrained models, and
            runs that `serving.convert` converted, are run by ONNX Runtime if it is installed and
            `flip` and `outputs` are those of the conversion; else by Keras.
        outputs: names of the returned outputs. Exports have `embedding` and possibly `local`; Keras
            models have further ones.
        flip: add the embedding of the mirrored image; None: as the source was trained. Exports and
            network files have a fixed graph.
        member: member of a run with several members: a number, "best" or "ensemble".
        input_size: (h, w) in pixels of a network file.
        channel_order: "rgb" or "bgr".
        scale: gray levels, one or three in `channel_order`.
        mean: gray levels, one or three in `channel_order`.
        layout: "nchw" or "nhwc".

    Raises:
        InputError: an unknown or broken source, arguments that do not apply to it or are missing,
            or a package that is not installed.

    Example:
        >>> import keras, numpy as np
        >>> images = keras.Input((16, 8, 3), dtype="uint8")
        >>> pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
        >>> embedder = load(keras.Model(images, pooled))
        >>> embedder.embed(np.full((2, 16, 8, 3), 51, np.uint8)).round(3)
        array([[0.577, 0.577, 0.577],
               [0.577, 0.577, 0.577]], dtype=float32)
    """
    settings = {
        "input_size": None if input_size is None else tuple(map(int, input_size)),
        "channel_order": channel_order,
        "scale": scale,
        "mean": mean,
        "layout": layout,
    }
    if isinstance(source, str | os.PathLike):
        source = Source.of(source)
    if not isinstance(source, Source) or source.is_keras:
        _check_absent("Keras models", settings)
        if not isinstance(source, Source):
            _check_runtime(runtime, ("keras",))
            return _of_keras(source, outputs, flip, member)
        name, folder = _conversion(source, runtime, outputs, flip, member)
        if folder is None:
            return _of_keras(source, outputs, flip, member)
        return _of_conversion(source, folder, name, member)
    fixed = {"flip": flip or None, "member": None if member == "1" else member}
    _check_absent("exports and network files", fixed)
    embedder = _of_files(source, runtime, settings).select(*outputs)
    embedder.calibration = source.calibration()
    return embedder


def load_embedder(
    source: "StrPath | Source | keras.Model" = "pretrained",
    runtime: str = "auto",
    **settings: Any,
) -> Embedder:
    """Return the embedder of a model; see `load`.

    Args:
        source: see `load`.
        runtime: see `load`.
        settings: further arguments of `load`.

    Raises:
        InputError: as in `load`; a pair verifier.
    """
    return as_embedder(load(source, runtime, **settings))


def as_embedder(model: "Embedder | PairVerifier") -> Embedder:
    """Return the model.

    Args:
        model: result of `load`.

    Raises:
        InputError: a pair verifier.
    """
    if isinstance(model, Embedder):
        return model
    raise models.no_embeddings(model.source)


def runtime_of(source: Source, runtime: str = "auto", member: str = "1") -> str:
    """Return the runtime that `load` uses for the embeddings of a source.

    Args:
        source: see `load`.
        runtime: see `load`.
        member: see `load`.

    Raises:
        InputError: the source has no such runtime.
    """
    if source.is_keras:
        return _conversion(source, runtime, ONLY_EMBEDDING, None, member)[0]
    metadata = source.metadata
    if metadata is not None and metadata.format == "saved_model":
        return "saved_model"
    suffix = source.path.suffix if metadata is None else SUFFIXES.get(metadata.format, "")
    return RUNTIMES.get(suffix, ("auto",))[0] if runtime == "auto" else runtime


def _conversion(
    source: Source, runtime: str, outputs: Sequence[str], flip: bool | None, member: str
) -> tuple[str, Path | None]:
    """Return the runtime of a Keras source, and the folder of its conversion unless it is Keras."""
    convertible = source.kind in ("run", "pretrained")
    _check_runtime(runtime, ("keras", *(RUNTIMES[".onnx"] if convertible else ())))
    if runtime == "keras" or not convertible:
        return "keras", None
    same = tuple(outputs) == ONLY_EMBEDDING and flip in (None, source.settings["flip"])
    if runtime != "auto" and not same:
        text = f"{runtime} runs {source} with its own flip and the output embedding only."
        raise InputError(f"{text} Choose runtime keras.", "runtime")
    if not same or (runtime == "auto" and find_spec("onnxruntime") is None):
        return "keras", None
    folder = source.conversion(member)
    if folder is None and runtime != "auto":
        fix = "Convert it with keras_reid.serving.convert, or choose runtime keras."
        raise InputError(f"{source} has no conversion for {runtime}. {fix}", "runtime")
    if folder is None:
        return "keras", None
    return "onnx" if runtime == "auto" else runtime, folder


def _of_conversion(source: Source, folder: Path, runtime: str, member: str) -> Embedder:
    """Return the embedder of the conversion of a run or pretrained model."""
    export = Source("export", str(folder))
    embedder = _of_files(export, runtime, {})
    embedder.flip = source.settings["flip"]
    embedder.calibration = source.calibration(member)
    embedder.source, embedder.member = source, member
    return embedder


def _of_keras(
    source: "Source | keras.Model", outputs: Sequence[str], flip: bool | None, member: str
) -> "Embedder | PairVerifier":
    """Return the embedder or the pair verifier of a Keras model."""
    from keras_reid.inference.keras_model import KerasEmbedder
    from keras_reid.inference.pair_verifier import PairVerifier

    if not isinstance(source, Source):
        pair = models.is_pair_verifier(source)
        return PairVerifier(source) if pair else KerasEmbedder(source, bool(flip), outputs)
    model, calibration = source.load_model(member), source.calibration(member)
    if models.is_pair_verifier(model):
        return PairVerifier(model, source, calibration)
    flip = source.settings["flip"] if flip is None else flip
    embedder = KerasEmbedder(model, flip, outputs, source)
    embedder.calibration = calibration
    return embedder


def _of_files(source: Source, runtime: str, settings: Mapping[str, Any]) -> Embedder:
    """Return the embedder of an export or a network file."""
    metadata, file = source.metadata, source.path
    if metadata is not None:
        _check_absent("exports", settings)
        metadata.check(source.path)  # some runtimes crash on a truncated file
        if metadata.format == "saved_model":
            from keras_reid.inference.saved_model import SavedModelEmbedder

            _check_runtime(runtime, ("saved_model",))
            return SavedModelEmbedder(source, metadata)
        checks.one_of(SUFFIXES, "Load it with a newer keras_reid.", format=metadata.format)
        file = source.path / f"model{SUFFIXES[metadata.format]}"
    from keras_reid.inference.network import NetworkEmbedder
    from keras_reid.inference.runtimes import OPENERS

    choices = RUNTIMES[file.suffix]
    _check_runtime(runtime, choices)
    name = choices[0] if runtime == "auto" else runtime
    rule = f"be a complete model with one input for {name}"
    with parsing(source, rule, "Export it again.", Exception):
        network = OPENERS[name](file)
    return NetworkEmbedder(source, file, network, metadata, settings)


def _check_runtime(runtime: str, choices: Sequence[str]) -> None:
    checks.one_of(("auto", *choices), "Export the model for other runtimes.", runtime=runtime)


def _check_absent(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raise for arguments that do not apply to a source."""
    for name, value in arguments.items():
        if value is not None:
            raise InputError(f"`{name}` does not apply to {kind}, got {value!r}. Omit it.", name)
