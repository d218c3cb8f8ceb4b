"""Reading of text, JSON and Keras files. Broken files raise `InputError`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Any

import numpy as np

from keras_reid.errors import InputError, first_line, invalid_file
from keras_reid.names import StrPath, expanded
from keras_reid.saving import load_model

Fields = Mapping[str, type | UnionType]
NUMBER = int | float


@contextmanager
def parsing(
    path: object, rule: str, fix: str, errors: Any = (OSError, ValueError)
) -> Iterator[None]:
    """Convert errors of the system and of parsers within the block.

    Args:
        path: file, or another text that names the place.
        rule: continues "must", see `keras_reid.errors.invalid_file`.
        fix: sentence with the next step.
        errors: exceptions to convert, a class or a tuple of classes; `InputError` stays.

    Raises:
        InputError: one of the errors, with its first line.
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        raise invalid_file(path, rule, f"'{first_line(error)}'", fix) from error


def read_text(file: StrPath, remedy: str = "Check the path, or save the file as UTF-8.") -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    Args:
        file: the file.
        remedy: last sentence of the error message.

    Raises:
        InputError: the file is not readable or not in UTF-8.
    """
    path = expanded(file)
    with parsing(path, "be a text file in UTF-8", remedy):
        return path.read_text(encoding="utf-8-sig")


def content_digest(file: StrPath) -> str:
    """Return a digest of a file's content, 32 hexadecimal digits; "" if it cannot be read."""
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def read_json(file: StrPath, fields: Fields, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        file: the file.
        fields: types of the values that are checked if they exist.
        remedy: last sentence of the error message, such as "Train again."

    Raises:
        InputError: the file is not readable or not a JSON object, or a value has another type.
    """
    return _json_object(read_text(file, remedy), str(file), fields, remedy)


def read_json_lines(file: StrPath, fields: Fields, remedy: str) -> list[dict[str, Any]]:
    """Return the objects in the lines of a file.

    Args:
        file: the file.
        fields: see `read_json`.
        remedy: see `read_json`.

    Raises:
        InputError: see `read_json`; it names the line.
    """
    lines = read_text(file, remedy).splitlines()
    return [
        _json_object(line, f"{file}, line {n}", fields, remedy) for n, line in enumerate(lines, 1)
    ]


def _json_object(text: str, where: str, fields: Fields, remedy: str) -> dict[str, Any]:
    with parsing(where, "be JSON", remedy, (ValueError, RecursionError)):
        value = json.loads(text)
    rule, received = "be a JSON object", value
    if isinstance(value, dict):
        shared = fields.keys() & value.keys()
        wrong = [name for name in shared if not isinstance(value[name], fields[name])]
        if not wrong:
            return value
        kind = fields[wrong[0]]
        wanted = kind.__name__ if isinstance(kind, type) else kind
        rule, received = f"have a value of type {wanted} for `{wrong[0]}`", value[wrong[0]]
    raise invalid_file(where, rule, repr(received)[:80], remedy)


def read_model(file: StrPath) -> Any:
    """Return the Keras model of a `.keras` file, without running code from the file.

    Raises:
        InputError: Keras cannot read the file, or rejects it as unsafe.
    """
    path = expanded(file)
    rule = "be a Keras model in a .keras file"
    with parsing(path, rule, "Save or train it again.", Exception):  # h5py raises many kinds
        return channels_last(load_model(path, compile=False, safe_mode=True))


def channels_last(model: Any) -> Any:
    """Make a model independent of `keras.config.image_data_format` and return it.

    `keras.layers.Rescaling` reads the setting at each call if its scale is one number per channel.
    A scale (1, 1, c) has one meaning.
    """
    import keras

    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == 1:
            layer.scale = np.reshape(layer.scale, (1, 1, -1)).tolist()
        channels_last(layer)
    return model
