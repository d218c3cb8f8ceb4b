"""Exception for invalid input, and the form of its messages."""

import unicodedata
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Invalid input: a missing file, a wrong column, an unknown name, sizes that do not fit.

    The commands print the message and exit with code 1. Any other exception is a defect of the
    package and keeps its traceback.

    Args:
        message: rule, received value and fix, see `invalid`.
        argument: name of the argument to change. In the message, a command replaces `` `name` ``
            by its flag.
    """

    # AutoGraph replaces other exceptions in a `tf.function` by a StagingError with a traceback.
    ag_pass_through = True

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(printable(message))
        self.argument = argument


def invalid(name: str, rule: str, received: Any, fix: str = "") -> InputError:
    """Return the error of an argument: `` `name` must be RULE, got RECEIVED. FIX ``.

    Args:
        name: argument.
        rule: continues "must be", for example "at least 1".
        received: value, or a `str` subclass `Shown` with a description of it.
        fix: sentence with the next step, if the rule does not imply it.
    """
    shown = received if isinstance(received, Shown) else repr(received)
    return InputError(f"`{name}` must be {rule}, got {shown}. {fix}".rstrip(), name)


def invalid_file(file: Any, rule: str, received: Any, fix: str) -> InputError:
    """Return the error of a file, a folder or a line: `` `file` must RULE, got RECEIVED. FIX ``.

    Args:
        file: path, or a path and a place in the file, such as "images.csv, line 3".
        rule: continues "must", for example "be a video".
        received: description of the content, which is printed without quotes.
        fix: sentence with the next step.
    """
    return InputError(f"`{file}` must {rule}, got {received}. {fix}")


class Shown(str):
    """Description of a received value, which `invalid` prints without quotes."""


def printable(text: str) -> str:
    r"""Escape the control characters that a terminal interprets, such as `\x1b`.

    Also escape surrogates, which Python uses for bytes of file names that are not UTF-8.
    """
    return "".join(c if _harmless(c) else ascii(c)[1:-1] for c in text)


def _harmless(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


def first_line(error: Exception) -> str:
    """Return the first line of a third-party error, truncated to 160 characters."""
    if text := getattr(error, "strerror", None):  # operating system; without the path
        return str(text)
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else repr(error)


def counted(count: int, singular: str) -> str:
    """Return the number and the noun in its form.

    Args:
        count: any integer.
        singular: noun, such as "image".

    Example:
        >>> counted(1, "image"), counted(2000, "identity")
        ('1 image', '2,000 identities')
    """
    plural = singular[:-1] + "ies" if singular.endswith("y") else singular + "s"
    return f"{count:,} {singular if count == 1 else plural}"


def name_some(names: Sequence[object], most: int = 5) -> str:
    """Return a list for messages, such as `a, b, c and 7 more`."""
    rest = len(names) - most
    first = ", ".join(str(name) for name in names[:most])
    return f"{first} and {rest} more" if rest > 0 else first
