"""Print the error messages of the package by file: `python tools/errors.py [FOLDER …]`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "keras_reid"


class Message(NamedTuple):
    """Message of an `InputError`; `{name}` replaces an inserted value."""

    file: str
    line: int
    text: str


def messages(folder: Path = PACKAGE) -> Iterator[Message]:
    """Yield the messages of calls of `InputError(...)` and `invalid(...)`."""
    for file in sorted(folder.rglob("*.py")):
        name = str(file.relative_to(PACKAGE.parent))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (text := _message(node)) is not None:
                yield Message(name, node.lineno, text)


def _message(call: ast.Call) -> str | None:
    """Return the message of a call that creates an error, or None for other calls."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else None
    if isinstance(call.func, ast.Name):
        function = call.func.id
    parts = [_text(argument) for argument in call.args]
    if function == "InputError" and parts:
        return parts[0]
    if function != "invalid" or len(parts) < 3:
        return None
    fixes = [_text(keyword.value) for keyword in call.keywords if keyword.arg == "fix"]
    return " ".join([f"`{parts[0]}` must be {parts[1]}, got {{…}}.", *parts[3:], *fixes])


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    value = node.value if isinstance(node, ast.FormattedValue) else node
    return f"{{{ast.unparse(value)}}}"


if __name__ == "__main__":
    for place in map(Path, sys.argv[1:] or [PACKAGE]):
        for message in messages(place.resolve()):
            print(f"{message.file}:{message.line}: {message.text}")
