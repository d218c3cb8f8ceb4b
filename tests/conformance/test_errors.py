"""Form of the error messages of the package; `python tools/errors.py` prints them."""

import re
import sys
from itertools import groupby

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from errors import PACKAGE, messages

FILES = {file: [*found] for file, found in groupby(messages(), lambda message: message.file)}
# An argument, a value, a flag, an environment variable or a sentence.
BEGIN = re.compile(r"`|\{|--[a-z]|[A-Z]")


def test_messages_tool_collects_every_raised_input_error():
    sources = [file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")]
    raised = sum(len(re.findall(r"\braise (InputError|invalid)\(", text)) for text in sources)
    collected = sum(map(len, FILES.values()))
    assert raised <= collected < raised + 30  # some errors are returned or stored


@pytest.mark.parametrize("file", FILES)
def test_errors_every_message_has_one_form(file):
    for message in FILES[file]:
        place = f"{file}:{message.line}: {message.text}"
        text = re.sub(r"\{[^{}]*\}", "{}", message.text)
        assert BEGIN.match(message.text), f"{place} must begin with a name or a capital letter"
        assert text.endswith((".", "}", "?")), f"{place} must end with a full stop"
        assert "received" not in text, f"{place} must not contain 'received'"
        assert ";" not in text, f"{place} must not contain ';'"
