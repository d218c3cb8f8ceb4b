"""Names outside of the terminal's code page do not end a command; files are UTF-8."""

import contextlib
import io
import json

import absl.flags
import numpy as np
import pytest
from PIL import Image

from keras_reid import gallery
from keras_reid.cli import options, search, train
from keras_reid.cli.terminal import json_text, say

NAMES = ("Müller", "Łukasz", "中村", "🙂")
CODE_PAGES = ("cp1252", "cp437", "ascii", "latin-1", "utf-8")


def printed(code_page, command, *flags, cwd, code=0):
    """Return the output, in a code page, of a command that ends with an exit code."""
    values = absl.flags.FlagValues()
    options.define(command.fields, values)
    stream, ended = io.TextIOWrapper(io.BytesIO(), encoding=code_page), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(stream):
        try:
            command.main(values(["command", *flags]), values)
        except SystemExit as end:
            ended = end.code
    assert ended == code
    stream.flush()
    return stream.buffer.getvalue().decode(code_page)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Return a folder with the gallery `people` of the names, described by an attribute."""
    folder = tmp_path_factory.mktemp("people")
    with gallery.open(f"faiss:{folder}/people") as opened:
        opened.enrol(
            np.eye(len(NAMES), 8, dtype=np.float32),
            NAMES,
            images=[f"{name}/1.jpg" for name in NAMES],
            attributes=np.full((len(NAMES), 1), 0.9, np.float32),
            attribute_names=["hat"],
            model_fingerprint="0123456789abcdef",
        )
    return folder


@pytest.mark.parametrize("code_page", CODE_PAGES)
def test_search_json_in_any_code_page_has_the_names(code_page, people):
    flags = ("--gallery=faiss:people", "--description=hat=1", "--format=json", "query")
    text = printed(code_page, search.run, *flags, cwd=people)
    hits = json.loads(text)["queries"][0]["hits"]
    assert sorted(hit["identity"] for hit in hits) == sorted(NAMES)


@pytest.mark.parametrize("code_page", CODE_PAGES)
def test_search_table_in_any_code_page_replaces_letters(code_page, people, tmp_path):
    flags = ("--gallery=faiss:people", "--description=hat=1", "query")
    lines = printed(code_page, search.run, *flags, cwd=people).splitlines()
    printed(code_page, search.run, *flags, f"--out={tmp_path}/a.html", cwd=people)
    for name in NAMES:
        shown = name.encode(code_page, "replace").decode(code_page)
        assert any(shown in line for line in lines)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)


def test_train_check_only_in_ascii_prints_report(tmp_path):
    for name in NAMES:
        (tmp_path / "crops" / name).mkdir(parents=True)
        Image.new("RGB", (16, 32)).save(tmp_path / f"crops/{name}/1.png")
    flags = ("--check_only", "--dataset=folder", "--data_dir=crops")
    # The images are equal, which the report prints before the error.
    assert "M?ller" in printed("ascii", train.run, *flags, cwd=tmp_path, code=1)


def test_json_text_to_unicode_stream_keeps_letters(capsys):
    say(json_text({"name": "中村"}))
    assert capsys.readouterr().out == '{\n  "name": "中村"\n}\n'
