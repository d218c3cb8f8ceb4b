"""Programs that embed an image with an export: the same in the docs, and without the package."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from keras_reid import inference, models, serving
from keras_reid.inference.metadata import Metadata
from keras_reid.serving.programs import TEMPLATES, snippets

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
# Fails at each import of keras_reid, runs the program, and writes its result.
WITHOUT = """
import sys
sys.modules["keras_reid"] = None
{code}
numpy = __import__("numpy")
numpy.save("embedding.npy", embedding)
"""


def metadata(format: str, local: tuple[int, int] | None = None) -> Metadata:
    return Metadata(format, "float32", (192, 96), 8, False, local, "0")


@pytest.mark.parametrize("format", serving.FORMATS)
def test_snippets_are_in_docs(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suffix = "" if format == "saved_model" else f"-{format}"
    version = Path(f"export/person{suffix}/1")
    version.mkdir(parents=True)
    metadata(format).write(version)
    codes = snippets(version)
    assert {*codes} == ({"saved_model", "rest"} if format == "saved_model" else {format})
    for code in codes.values():
        assert f"```py\n{code}```\n" in PAGE


def test_snippets_docs_contain_all_templates() -> None:
    assert PAGE.count("```py\n") == len(TEMPLATES)


def test_snippets_rest_with_local_output_names_embedding(tmp_path: Path) -> None:
    metadata("saved_model", (4, 16)).write(tmp_path)
    assert '["outputs"]["embedding"][0]' in snippets(tmp_path)["rest"]


def result_of(code: str, folder: Path) -> np.ndarray:
    """Return the embedding of a program in a process that cannot import the package."""
    called = [sys.executable, "-I", "-c", WITHOUT.format(code=code)]
    ended = subprocess.run(called, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return np.load(folder / "embedding.npy")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return models.build("tiny", 5, (32, 16), weights="none")


def exported(model: keras.Model, folder: Path, format: str) -> tuple[Path, np.ndarray]:
    """Return an export, and the embedding of `person.jpg` by this package."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (12, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 120)).save(folder / "person.jpg")
    version = serving.export(model, folder / "person", format=format)
    return version, inference.load(version).embed([str(folder / "person.jpg")])[0]


@pytest.mark.slow
@pytest.mark.parametrize("format", serving.FORMATS)
def test_snippet_embeds_image_without_package(
    format: str, model: keras.Model, tmp_path: Path
) -> None:
    version, expected = exported(model, tmp_path, format)
    got = result_of(snippets(version)[format], tmp_path)
    np.testing.assert_allclose(got, expected, atol=0.01)  # other rounding of resized pixels


@pytest.mark.slow
def test_snippet_rest_embeds_image_without_package(model: keras.Model, tmp_path: Path) -> None:
    version, expected = exported(model, tmp_path, "saved_model")
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"outputs": [expected.tolist()]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = snippets(version)["rest"].replace("localhost:8501", f"127.0.0.1:{server.server_port}")
    try:
        got = result_of(code, tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    ((path, body),) = requests
    assert path == "/v1/models/person:predict"
    signature = inference.load(version).signatures[body["signature_name"]]
    (image,) = body["inputs"]["image_bytes"]
    assert [*image] == ["b64"]
    assert [*signature.structured_input_signature[1]] == ["image_bytes"]
