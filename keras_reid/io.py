"""Reading and writing of files. Broken files and failed writes raise `InputError`.

Files and folders are written under a temporary name next to their path and renamed when complete:
after a kill or on a full disk, the existing file is unchanged.
"""

import csv
import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from types import UnionType
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError, first_line, invalid_file
from keras_reid.names import expanded, normalized
from keras_reid.saving import load_model

PUBLIC, PRIVATE = 0o666, 0o600  # modes of new files, before the umask
FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
LONGEST_NAME = 50  # characters of at most four bytes; most file systems allow 255 bytes
# Temporary names: .HOST-PROCESS-WRITER-NUMBER-NAME
HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
WRITER = token_hex(4)  # of this process; process numbers repeat, in containers often

SEPARATORS = ",;\t"
BLANK = SEPARATORS + ' "\r\n'
# A first line `sep=;` states the separator for Excel.
SEP_LINE = re.compile('"?sep=([,;\t|]?)', re.IGNORECASE)
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
MATLAB_BYTES, MATLAB_SECONDS = 2**33, 120

StrPath = str | os.PathLike[str]
Fields = Mapping[str, type | UnionType]
NUMBER = int | float
Publish = Callable[[Path, Path], object]


class Busy(InputError):
    """Another process holds the lock."""


def new_file(path: StrPath) -> AbstractContextManager[Path]:
    """Return a context that yields a temporary path and renames it to `path` at its end.

    Raises:
        InputError: `path` exists, or cannot be written.
    """
    return _staged(path, PUBLIC, _publish_new)


def replaced_file(path: StrPath, mode: int = PUBLIC) -> AbstractContextManager[Path]:
    """Return a context that yields a temporary path, which replaces the file `path` at its end.

    Raises:
        InputError: `path` cannot be written.
    """
    return _staged(path, mode)


def new_folder(path: StrPath) -> AbstractContextManager[Path]:
    """Return a context that yields a temporary folder and renames it to `path` at its end.

    Raises:
        InputError: `path` exists and is not an empty folder, or cannot be written.
    """
    return _staged(path, None)


@contextmanager
def locked(path: StrPath, wait: bool = False) -> Iterator[None]:
    """Hold a lock within the block; the system releases it if the process is killed.

    Args:
        path: lock file, which is removed when the block ends.
        wait: wait for the other process instead of raising `Busy`.

    Raises:
        Busy: another process holds the lock.
        InputError: the file cannot be written.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s, which --help does not need

    path = expanded(path)
    lock = FileLock(path, -1 if wait else 0, thread_local=False)
    with _writing(path, path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise Busy(
                f"`{path.parent}` must be used by one process at a time, got another. Wait until "
                "it ends."
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows
            path.unlink()  # before the release; since filelock 4.0, a waiting process notices it
        lock.release()


def check_writable(path: StrPath) -> None:
    """Raise `InputError` if a file or folder cannot be created, before the work for it begins."""
    path = expanded(path).absolute()
    folder = next(folder for folder in path.parents if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise invalid_file(
            path, "be writable", f"no permission for {folder}", "Choose another path."
        )


def check_new_folder(path: StrPath) -> None:
    """Raise `InputError` if `new_folder` cannot create a folder because of existing files."""
    path = expanded(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise invalid_file(path, "be a new or empty folder", "other files", "Choose another one.")


def check_room(path: StrPath, size: int) -> None:
    """Raise `InputError` if the disk is too full for `size` bytes; HDF5 would end the process."""
    path = expanded(path)
    with _writing(path, path.name):
        if shutil.disk_usage(path.absolute().parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drop_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes of this host left for `path`."""
    name = re.escape(path.name[-LONGEST_NAME:])
    for left in path.parent.iterdir():
        owner = re.fullmatch(rf"\.{HOST}-(\d+)-(\w+)-\w+-{name}", left.name)
        if owner and owner[2] != WRITER and not _is_running(int(owner[1])):
            _remove(left)


def _is_running(process: int) -> bool:
    """Return whether another process has this number."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except OSError as error:  # PermissionError: the process of another user
        return not isinstance(error, ProcessLookupError)
    return process != os.getpid()


@contextmanager
def _staged(path: StrPath, mode: int | None, publish: Publish = os.replace) -> Iterator[Path]:
    """Yield a new file, or a new folder without a mode, and publish it."""
    path = expanded(path)
    name = f".{HOST}-{os.getpid()}-{WRITER}-{token_hex(4)}-{path.name[-LONGEST_NAME:]}"
    staged = path.with_name(name)
    with _writing(path, name):
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_leftovers(path)
        try:
            if mode is None:
                staged.mkdir()
                yield staged
            else:
                staged.touch(mode, exist_ok=False)
                yield staged
                with staged.open("rb") as written:
                    os.fsync(written.fileno())
            publish(staged, path)
        finally:
            _remove(staged)


def _publish_new(staged: Path, path: Path) -> None:
    try:
        os.link(staged, path)
    except OSError:  # the path exists, or the file system has no hard links
        if os.path.lexists(path):
            raise invalid_file(path, "be a new path", "a file", "Choose another path.") from None
        os.replace(staged, path)


@contextmanager
def _writing(path: Path, name: str) -> Iterator[None]:
    """Convert errors of the file system; `name` is that of the file which is written."""
    try:
        yield
    except Exception as error:
        # h5py and TensorFlow raise other exceptions, with the text of the system.
        full = [text for text in FULL if text in str(error)]
        if not (full or isinstance(error, OSError)):
            raise
        other = getattr(error, "filename", None)
        place = f" for {other}" if other and name not in str(other) else ""
        reason = full[0] if full else _reason(error)
        fix = "Choose another path or free disk space; existing files are unchanged."
        raise invalid_file(path, "be writable", f"'{reason}'{place}", fix) from error


@contextmanager
def _reading(
    path: object, rule: str, fix: str, errors: Any = (OSError, ValueError)
) -> Iterator[None]:
    """Convert errors of the system and of parsers; see `invalid_file`."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        raise invalid_file(path, rule, f"'{_reason(error)}'", fix) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _remove(staged: Path) -> None:
    if staged.is_dir():
        shutil.rmtree(staged, ignore_errors=True)
    else:
        with suppress(OSError):
            staged.unlink()


def read_text(file: StrPath) -> str:
    """Return the text of a file in UTF-8, without a byte order mark."""
    path = expanded(file)
    with _reading(path, "be a text file in UTF-8", "Check the path, or save the file as UTF-8."):
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
    return _json_object(read_text(file), str(file), fields, remedy)


def read_json_lines(file: StrPath, fields: Fields, remedy: str) -> list[dict[str, Any]]:
    """Return the objects in the lines of a file; see `read_json`."""
    lines = read_text(file).splitlines()
    return [
        _json_object(line, f"{file}, line {n}", fields, remedy) for n, line in enumerate(lines, 1)
    ]


def _json_object(text: str, where: str, fields: Fields, remedy: str) -> dict[str, Any]:
    with _reading(where, "be JSON", remedy, (ValueError, RecursionError)):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise invalid_file(where, "be a JSON object", repr(text[:40]), remedy)
    for name, kind in fields.items():
        if name in value and not isinstance(value[name], kind):
            wanted = kind.__name__ if isinstance(kind, type) else kind
            rule = f"have a value of type {wanted} for `{name}`"
            raise invalid_file(where, rule, repr(value[name])[:80], remedy)
    return value


class Line(NamedTuple):
    """Line of a table: its number in the file, and its stripped values by column."""

    number: int
    values: dict[str, str]


def read_table(
    table: StrPath, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[str], Iterator[Line]]:
    """Return the columns of a CSV file, and an iterator over its lines.

    The text is UTF-8, or UTF-16 with a byte order mark. The separator is the most frequent of
    comma, semicolon and tab in the header, or that of a first line `sep=;`. Column names are in
    NFC. Lines without values and trailing columns without a name are skipped; Excel writes both.

    Args:
        table: the file.
        required: columns that must exist, in any case.
        optional: further columns that are recognized in any case.

    Raises:
        InputError: the file is not readable, or a column is missing or repeated; while the lines
            are read, one has another number of values or another encoding.
    """
    path = expanded(table)
    rows = _filled_rows(path)
    standard = {name.casefold(): name for name in (*required, *optional)}
    names = map(normalized, next(rows, (0, []))[1])
    header = [standard.get(name.casefold(), name) for name in names]
    while header and not header[-1]:
        header.pop()
    _check_header(header, required, path)

    def lines() -> Iterator[Line]:
        for number, values in rows:
            if len(values) < len(header) or any(values[len(header) :]):
                received = f"{len(values)} in line {number}"
                raise invalid_file(
                    path, f"have {len(header)} values", received, "Correct the line."
                )
            yield Line(number, dict(zip(header, values, strict=False)))

    return header, lines()


def _check_header(header: Sequence[str], required: Sequence[str], path: Path) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise invalid_file(path, "have each column once", f"{twice[0][:80]!r} twice", "Rename one.")
    missing = [column for column in required if column not in header]
    if missing:
        rule, received = f"have the columns {', '.join(required)}", ", ".join(header)[:200]
        raise invalid_file(path, rule, received or "none", f"Add the column {missing[0]}.")


def _filled_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and stripped values of the rows with values, except a row `sep=`."""
    fix = 'Check the path, or save the file as UTF-8 (in Excel "CSV UTF-8").'
    with _reading(path, "be a table in UTF-8", fix):
        with path.open("rb") as start:
            encoding = "utf-16" if start.read(2) in UTF16 else "utf-8-sig"
        with path.open(newline="", encoding=encoding) as file:
            first = next((line for line in file if line.strip(BLANK)), "")
            stated = SEP_LINE.match(first)
            separator = stated[1] if stated and stated[1] else max(SEPARATORS, key=first.count)
            file.seek(0)
            rows = csv.reader(file, delimiter=separator, strict=True)
            try:
                for row in rows:
                    values = [value.strip() for value in row]
                    if any(values) and not SEP_LINE.fullmatch(row[0]):
                        yield rows.line_num, values
            except csv.Error as error:
                received = f"'{error}' in line {rows.line_num}"
                raise invalid_file(
                    path, "be comma-separated", received, "Correct the line."
                ) from error


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(itertools.chain([header], rows))


def table_path(table: Path, name: str) -> Path:
    """Return the file that a table names by a path relative to its folder.

    A Windows path is read with `/` if only that file exists.
    """
    path = table.parent / expanded(name)
    posix = table.parent / name.replace("\\", "/")
    return posix if not os.path.exists(path) and os.path.exists(posix) else path


def read_arrays(path: StrPath, names: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the named arrays of an `.npz` file or of a folder of `.npy` files, and all names.

    The arrays of a folder are memory-mapped.

    Raises:
        InputError: the file is not readable, or an array holds objects.
    """
    path = expanded(path)
    rule, fix = "be an .npz file or a folder of .npy files", "Write one with `numpy.savez`."
    with _reading(path, rule, fix, Exception):  # NumPy and zipfile raise many kinds
        if path.is_dir():
            files = {file.stem: file for file in path.glob("*.npy")}
            mapped = {n: np.load(files[n], mmap_mode="r") for n in names if n in files}
            return mapped, sorted(files)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {n: held[n] for n in names if n in held.files}, sorted(held.files)


def read_matlab(file: StrPath, keys: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of a MATLAB file; those in structures are named `structure/field`.

    SciPy can crash on malformed files, so it runs in a subprocess limited to 8 GiB and two minutes.

    Raises:
        InputError: the file is not readable, or one of `keys` is missing.
    """
    path = expanded(file)
    code = "from keras_reid import io; io._write_matlab()"
    command = [sys.executable, "-P", "-c", code, str(path)]
    fix = "Download it again."
    with _reading(path, "be a MATLAB file of version 7 or older", fix, Exception):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            done = subprocess.run(
                command, check=False, env=environment, capture_output=True, timeout=MATLAB_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"no result in {MATLAB_SECONDS} s") from error
        if done.returncode:
            raise ValueError(["crash", *done.stderr.decode(errors="replace").splitlines()][-1])
        with np.load(BytesIO(done.stdout)) as held:
            values = dict(held)
    missing = [key for key in keys if key not in values]
    if missing:
        raise invalid_file(path, f"contain {', '.join(keys)}", f"no {missing[0]}", fix)
    return values


def _write_matlab() -> None:
    """Write the arrays of the MATLAB file `sys.argv[1]` to stdout, as `numpy.savez` does."""
    from scipy.io import loadmat

    with suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MATLAB_BYTES, MATLAB_BYTES))
    arrays: dict[str, Any] = {}

    def add(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if hasattr(value, "_fieldnames"):
                add(vars(value), f"{prefix}{name}/")
            elif not name.startswith("_"):
                array = np.asarray(value)
                arrays[prefix + name] = array.astype(str) if array.dtype.hasobject else array

    add(loadmat(sys.argv[1], squeeze_me=True, struct_as_record=False), "")
    np.savez(sys.stdout.buffer, **arrays)


def matlab_indices(values: np.ndarray, count: int, name: str) -> np.ndarray:
    """Return positions from 1 to `count` of a MATLAB array as positions from 0, in one row."""
    numbers = np.ravel(values)
    if not np.isin(numbers, np.arange(1, count + 1)).all():
        rule = f"be whole numbers from 1 to {count:,}"
        raise invalid_file(name, rule, "others", "Download it again.")
    return numbers.astype(np.int64) - 1


def read_model(file: StrPath) -> Any:
    """Return the Keras model of a `.keras` file, without running code from the file.

    Raises:
        InputError: Keras cannot read the file, or rejects it as unsafe.
    """
    path = expanded(file)
    rule = "be a Keras model in a .keras file"
    with _reading(path, rule, "Save or train it again.", Exception):  # h5py raises many kinds
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
