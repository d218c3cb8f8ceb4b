"""Opening of the model of a command by the fastest installed runtime."""

import sys
from importlib.util import find_spec
from typing import Any

from keras_reid import inference
from keras_reid.cli.startup import import_keras
from keras_reid.errors import InputError

Model = inference.Embedder | inference.PairVerifier
EXTRAS = "pip install '.[onnx]' in the checkout"
HEAVY = ("keras", "saved_model")  # runtimes that import TensorFlow


def open_model(source: inference.Source, convert: bool, loading: dict[str, Any]) -> Model:
    """Return the model of a source; convert a run for ONNX Runtime on its first use.

    Args:
        source: the model.
        convert: convert a run without a conversion.
        loading: further arguments of `inference.load`.
    """
    runtime, member = loading["runtime"], loading["member"]
    wanted = runtime in ("auto", *inference.RUNTIMES[".onnx"])
    if source.kind == "run" and wanted and convert and source.conversion(member) is None:
        return _converted(source, loading)
    name = inference.runtime_of(source, runtime, member)
    if name in HEAVY:
        import_keras()
    if name == "keras" and runtime == "auto" and source.kind != "keras":
        _say_missing()
    return inference.load(source, **loading)


def _converted(source: inference.Source, loading: dict[str, Any]) -> Model:
    """Return the model of a run that has no conversion yet."""
    from keras_reid import serving

    import_keras()
    runtime, member = loading["runtime"], loading["member"]
    model = inference.load(source, "keras", member=member)
    embeds = isinstance(model, inference.Embedder) and model.inputs == {"images"}
    if runtime == "auto" and (not embeds or _say_missing()):
        return model
    _say(f"converting {source} for ONNX Runtime, once")
    try:
        serving.convert(source, member)
    except (InputError, OSError) as error:
        if runtime != "auto":
            raise
        _say(f"not converted, Keras is used: {error}")
        return model
    return model if runtime == "auto" else inference.load(source, **loading)


def _say_missing() -> bool:
    """Print a line and return True if packages of the extra onnx are not installed."""
    missing = [name for name in ("onnxruntime", "onnx", "tf2onnx") if find_spec(name) is None]
    if missing:
        _say(f"ONNX Runtime starts and embeds faster than Keras: {EXTRAS}")
    return bool(missing)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
