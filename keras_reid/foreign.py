"""Files that others made: whatever is wrong with one becomes one sentence.

Each function reads one kind. None of them runs what a file says, unpickles, or takes memory that a
few bytes of a file ask for; each names the file, the place in it and the remedy.
"""

import builtins
import codecs
import csv
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from keras_reid.errors import InputError
from keras_reid.names import expanded, normalized
from keras_reid.saving import load_model

MOST_TEXT = 2**30  # bytes of a file of text
MOST_HEADER = 2**20  # characters
SEPARATORS = (",", ";", "\t")
# First line of a table that states its separator for Excel.
SEPARATOR_LINE = re.compile('"?sep=([,;\t|])"?[,;\t]*', re.IGNORECASE)
BLANK = "".join(SEPARATORS) + ' "\r\n\ufeff'
MOST_MODEL = 2**33  # bytes of an unpacked model
MATLAB_SECONDS = 120
# What of Keras reads files, or runs code, that a configuration names.
UNSAFE_LAYERS = [
    "Lambda",
    "__lambda__",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
]
SAFE_MODULES = ("builtins", "keras", "keras_reid", "keras_cv", "keras_hub")

Fields = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)
NOTHING = type(None)


def read_text(file: str | os.PathLike[str], what: str) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        file: its name.
        what: it should be, such as "a table".

    Raises:
        InputError: it cannot be read, is larger than 1 GiB or is no UTF-8.
    """
    path = expanded(file)
    try:
        if not os.path.isfile(path):
            raise InputError(f"{what} is a file: {path} is none; check the path")
        size = path.stat().st_size
        if size > MOST_TEXT:
            raise InputError(
                f"{what} has at most {MOST_TEXT:,} bytes: {path} has {size:,}; take it apart"
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} is text in UTF-8: byte {error.start:,} of {path} is none; save it as UTF-8"
        ) from error
    except OSError as error:
        raise _unreadable(path, what, error) from error


def _unreadable(path: Path, what: str, error: OSError) -> InputError:
    return InputError(f"{what} is read from {path}, which gave '{error.strerror or error}'")


def content_digest(file: str | os.PathLike[str]) -> str:
    """Return a digest of a file's content, 32 hexadecimal digits; "" if it cannot be read."""
    try:
        with open(file, "rb") as content:
            return hashlib.file_digest(
                content, partial(hashlib.blake2b, digest_size=16)
            ).hexdigest()
    except OSError:
        return ""


def read_json(file: str | os.PathLike[str], what: str, fields: Fields, remedy: str) -> Any:
    """The object that a JSON file holds.

    Args:
        file: its name.
        what: it should be, such as "the flags of a run".
        fields: the types of values that must be right where they are there.
        remedy: what to do about a broken one.

    Raises:
        InputError: it cannot be read, is no JSON, no object, or has another type in a field.
    """
    return _object(read_text(file, what), str(file), what, fields, remedy)


def read_json_lines(
    file: str | os.PathLike[str], what: str, fields: Fields, remedy: str
) -> list[dict[str, Any]]:
    """The objects that a file has in its lines, see `read_json`."""
    lines = read_text(file, what).splitlines()
    return [
        _object(line, f"line {number} of {file}", what, fields, remedy)
        for number, line in enumerate(lines, start=1)
    ]


def _object(text: str, where: str, what: str, fields: Fields, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{what} must be JSON, but {where} is broken ({str(error)[:120]}): {remedy}"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object, but {where} holds {text[:40]!r}: {remedy}")
    for name, wanted in fields.items():
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        if name in value and not _is_of(value[name], types):
            raise InputError(
                f"{what} has {name} of the type {' or '.join(t.__name__ for t in types)}, but "
                f"{where} has {str(value[name])[:80]!r}: {remedy}"
            )
    return value


def _is_of(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, types)


class Line(NamedTuple):
    """A line of a table: its number in the file, and its values by column, without spaces."""

    number: int
    values: dict[str, str]


def read_table(
    table: str | os.PathLike[str], required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[str], Iterator[Line]]:
    """Return the columns of a CSV file, and its lines as they are read.

    The text is UTF-8, or UTF-16 with a byte order mark. Values are separated by commas, semicolons
    or tabs, whichever the header has most of, or as a first line `sep=;` states. Names of columns
    are in NFC. Lines without values and columns without a name and values are left out, as Excel
    writes both.

    Args:
        table: the file.
        required: columns that it must have, in any case of letters.
        optional: further columns that are found in any case of letters.

    Raises:
        InputError: no such file, a missing or repeated column; while the lines are read, one of
            another number of values, or in another encoding.
    """
    table = expanded(table)
    if not os.path.isfile(table):
        raise InputError(f"a table is a CSV file: {table} is none")
    lines = _lines(table, [*required, *optional])
    header = list(next(lines).values)
    missing = [column for column in required if column not in header]
    if missing:
        raise InputError(
            f"a table needs the columns {', '.join(required)}, but {table} has only "
            f"{', '.join(header)[:200] or 'none'}: add {missing[0]}"
        )
    return header, lines


def _lines(table: Path, known: Sequence[str]) -> Iterator[Line]:
    """The header, each column as the value of itself, and then the lines."""
    try:
        with table.open("rb") as head:
            utf16 = head.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if utf16 else "utf-8-sig"
        with table.open(newline="", encoding=encoding) as file:
            rows = None
            try:
                separator, stated = _separator(file)
                rows = csv.reader(file, delimiter=separator, strict=True)
                if stated:
                    next(rows)
                yield from _records(rows, table, known)
            except UnicodeDecodeError as error:
                raise _wrong_encoding(table, encoding) from error
            except csv.Error as error:
                raise InputError(
                    f"a table must be UTF-8 text with comma-separated values, but {table} breaks "
                    f"off in line {rows.line_num if rows else 1} ({error}): mend it"
                ) from error
    except OSError as error:
        raise _unreadable(table, "a table", error) from error


def _separator(file: TextIO) -> tuple[str, bool]:
    """Return the separator of a table, and whether its first line states it; rewind the file."""
    line = file.readline(MOST_HEADER)
    stated = SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
    while line and not line.strip(BLANK):
        line = file.readline(MOST_HEADER)
    file.seek(0)
    return (stated[1], True) if stated else (max(SEPARATORS, key=line.count), False)


def _wrong_encoding(table: Path, encoding: str) -> InputError:
    """Return the error that names the first line that is not in the encoding."""
    remedy = 'save it as UTF-8 (in Excel "CSV UTF-8")'
    if encoding == "utf-16":
        return InputError(f"a table must be text, but {table} is not whole UTF-16: {remedy}")
    with table.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                text = line.decode("cp1252", "replace").strip()[:80]
                return InputError(
                    f"a table must be UTF-8 text, but line {number} of {table} has the byte "
                    f"0x{line[error.start]:02X} (as Windows-1252, it reads {text!r}): {remedy}"
                )
    raise AssertionError("a file without such a line decodes")


def _records(rows: Any, table: Path, known: Sequence[str]) -> Iterator[Line]:
    filled = (row for row in rows if any(value.strip() for value in row))
    names = {name.casefold(): name for name in known}
    header = [normalized(name.strip()) for name in next(filled, [])]
    while header and not header[-1]:
        header.pop()
    header = [names.get(name.casefold(), name) for name in header]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"a column stands in a table once: {table} has {twice[:80]!r} twice; rename one"
        )
    yield Line(1, dict(zip(header, header, strict=True)))
    for row in filled:
        values = [value.strip() for value in row]
        while len(values) > len(header) and not values[-1]:
            values.pop()
        if len(values) != len(header):
            raise InputError(
                f"line {rows.line_num} of {table} has more or fewer values than the header: mend "
                "the row"
            )
        yield Line(rows.line_num, dict(zip(header, values, strict=True)))


def table_path(table: Path, name: str) -> Path:
    """Return the file that a table names by a path relative to its folder.

    A path of Windows is read with `/` if only that file exists.
    """
    path = table.parent / expanded(name)
    if "\\" in name and not path.exists():
        posix = table.parent / name.replace("\\", "/")
        return posix if posix.exists() else path
    return path


def read_arrays(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of `FILE.npz`, or of a folder with one `.npy` of each name, which is memory-mapped.

    Raises:
        InputError: nothing to read, arrays of objects, or one whose header promises more numbers
            than the file has.
    """
    path = expanded(path)
    try:
        if path.is_dir():
            files = {name: path / f"{name}.npy" for name in names}
            return {
                n: np.load(file, mmap_mode="r") for n, file in files.items() if os.path.isfile(file)
            }
        with zipfile.ZipFile(path) as held:
            there = {Path(name).stem: name for name in held.namelist() if name.endswith(".npy")}
            return {name: _array(held, there[name]) for name in names if name in there}
    except Exception as error:  # whatever NumPy and zipfile raise of broken files
        raise InputError(
            "arrays are an .npz file or a folder of .npy files, but reading "
            f"{path} gave '{str(error)[:160]}': write one with numpy.savez(…)"
        ) from error


def _array(held: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an archive, whose header is looked at before its numbers."""
    with held.open(name) as file:
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        header = read.get(np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0)
        shape, fortran, dtype = header(file)
        bytes_ = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{name} holds objects, which are not read")
        content = file.read(bytes_ + 1)
    if len(content) != bytes_:
        raise ValueError(f"{name} is not the {bytes_:,} bytes that its header promises")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of what `read_arrays` reads."""
    path = expanded(path)
    if path.is_dir():
        return sorted(file.stem for file in path.glob("*.npy"))
    with zipfile.ZipFile(path) as held:
        return sorted(Path(name).stem for name in held.namelist())


def read_matlab(file: str | os.PathLike[str], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file by name, those in structures as "structure/field".

    Its parser dies of broken files, so it runs in another process, of 8 GiB and two minutes.

    Raises:
        InputError: the file is none, is broken, or lacks one of `keys`.
    """
    path = expanded(file)
    if not os.path.isfile(path):
        raise InputError(f"a MATLAB file must exist: {path} does not; check the path")
    rule = f"{path} must be a MATLAB file of version 7 or older, but reading it"
    remedy = "download it again"
    try:
        ended = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).with_name("matlab_child.py")), str(path)],
            capture_output=True,
            timeout=MATLAB_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{rule} did not end in {MATLAB_SECONDS} s: {remedy}") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise InputError(
            f"{rule} gave '{said[0][:160] if said else 'a crash of its parser'}': {remedy}"
        )
    with np.load(BytesIO(ended.stdout)) as held:
        values = {name: held[name] for name in held.files}
    missing = [key for key in keys if key not in values]
    if missing:
        raise InputError(
            f"{path} must hold {', '.join(keys)}, but {missing[0]} is missing: download it again"
        )
    return values


def matlab_indices(values: np.ndarray, count: int, what: str) -> np.ndarray:
    """Positions from 1 to `count` of a MATLAB array, from 0 and in one row.

    Raises:
        InputError: other numbers.
    """
    numbers = np.atleast_1d(values).ravel()
    if numbers.dtype.kind not in "iuf" or not np.isin(numbers, np.arange(1, count + 1)).all():
        raise InputError(
            f"{what} are whole numbers from 1 to {count:,}, but others stand there: download it "
            "again"
        )
    return numbers.astype(np.int64) - 1


def read_model(file: str | os.PathLike[str], what: str) -> Any:
    """The Keras model of a `.keras` file that runs no code of its own.

    Older versions of Keras call any function that the file names, so what it names is looked at
    first: layers of Keras and of this package, without those that run or read something else.

    Args:
        file: its name.
        what: it should be, such as "the backbone".

    Raises:
        InputError: it is no such file, is broken, or would run or read something else.
    """
    path = expanded(file)
    if not os.path.isfile(path):
        raise InputError(f"{what} is a .keras file: {path} is none; check the path")
    try:
        with zipfile.ZipFile(path) as held:
            _check_archive(held)
        return channels_last(load_model(path, compile=False))
    except Exception as error:  # whatever Keras, h5py and zipfile raise of broken files
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{what} must be a Keras model in a .keras file: {path} cannot be read "
            f"({first[:200]}); save or train it again"
        ) from error


def channels_last(model: Any) -> Any:
    """Make a model independent of `keras.config.image_data_format` and return it.

    `keras.layers.Rescaling` reads the setting at each call, if its scale is one number per channel.
    A scale (1, 1, c) has one meaning.
    """
    import keras

    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == 1:
            layer.scale = np.reshape(layer.scale, (1, 1, -1)).tolist()
        channels_last(layer)
    return model


def _check_archive(held: zipfile.ZipFile) -> None:
    """Refuses what is too large, or names what should not be called."""
    if sum(member.file_size for member in held.infolist()) > MOST_MODEL:
        raise ValueError(f"it has more than {MOST_MODEL:,} bytes")
    _check_config(json.loads(held.read("config.json")))
    import h5py

    weights = BytesIO(held.read("model.weights.h5"))  # in which one goes back and forth
    with h5py.File(weights, "r") as groups:
        _check_weights(groups, held.getinfo("model.weights.h5").file_size)


def _check_config(value: Any) -> None:
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            _check_config(part)
    if not isinstance(value, dict) or "class_name" not in value:
        return
    kind, module = value["class_name"], value.get("module") or "builtins"
    name = value.get("config") if kind == "function" else kind
    known = isinstance(module, str) and module.split(".")[0] in SAFE_MODULES
    # Activations are functions of "builtins" to Keras, which would find those of Python there, too.
    function = kind == "function" and module not in ("builtins", "keras.activations")
    python = module == "builtins" and hasattr(builtins, str(name))
    if not known or function or python or kind in UNSAFE_LAYERS:
        raise ValueError(f"it names {name} of {module}")


def _check_weights(groups: Any, size: int) -> None:
    """Arrays that stand in the file itself, and are no larger than it."""
    import h5py

    bytes_ = 0

    def look(group: Any) -> None:
        nonlocal bytes_
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink | h5py.SoftLink):
                raise ValueError(f"{name} of its weights is a link")
            part = group[name]
            if isinstance(part, h5py.Group):
                look(part)
            elif part.external or part.is_virtual:
                raise ValueError(f"{name} of its weights stands in another file")
            else:
                bytes_ += part.nbytes

    look(groups)
    if bytes_ > size:
        raise ValueError(f"its weights are {bytes_:,} bytes in a file of {size:,}")
