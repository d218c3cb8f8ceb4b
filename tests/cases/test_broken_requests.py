"""One broken file in a request does not change the embeddings of the others."""

import importlib.util
import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image

from keras_reid import models, serving
from keras_reid.serving import parity_check, saved_model

SIZE = (32, 16)
rng = np.random.default_rng(0)


def content(kind, size=SIZE):
    image = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8))
    image.save(file := io.BytesIO(), kind)
    return file.getvalue()


GOOD = [content("PNG"), content("JPEG", (50, 30)), content("BMP")]
BROKEN = {
    "empty": b"",
    "text": b"<html>404</html>",
    "truncated JPEG": content("JPEG", (200, 100))[:900],
    "truncated PNG": GOOD[0][:200],
    "TIFF": content("TIFF"),
    "BMP header": GOOD[2][:40],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = models.build("tiny", 3, SIZE, weights="none")
    return serving.export(
        models.stripes(model), tmp_path_factory.mktemp("e") / "person", local=True
    )


@pytest.fixture(scope="module")
def signature(exported):
    loaded = tf.saved_model.load(str(exported))
    return lambda files: {
        name: output.numpy()
        for name, output in loaded.signatures["serving_bytes"](
            image_bytes=tf.constant(files, tf.string)
        ).items()
    }


@pytest.mark.first(3)
@pytest.mark.parametrize("broken", BROKEN)
def test_serving_bytes_one_broken_file_returns_row_of_nan(signature, broken):
    expected = signature(GOOD)
    outputs = signature([GOOD[0], BROKEN[broken], *GOOD[1:]])
    assert set(outputs) == {"embedding", "local"}
    for name, output in outputs.items():
        assert np.isnan(output[1]).all()
        np.testing.assert_allclose(output[[0, 2, 3]], expected[name], atol=1e-5)


def test_serving_bytes_only_broken_files_returns_nan(signature):
    outputs = signature(list(BROKEN.values()))
    assert outputs["embedding"].shape == (len(BROKEN), 128)
    assert np.isnan(outputs["embedding"]).all()
    assert np.isnan(outputs["local"]).all()


def test_serving_bytes_empty_batch_returns_no_rows(signature):
    assert signature([])["embedding"].shape == (0, 128)


@pytest.mark.parametrize("order", [("embedding", "local"), ("local", "embedding")])
def test_parity_nan_in_one_output_fails(order):
    a = {"embedding": np.zeros((2, 3)), "local": np.zeros((2, 2, 3))}
    b = {"embedding": np.zeros((2, 3)), "local": np.full((2, 2, 3), np.nan)}
    difference = parity_check._difference({n: a[n] for n in order}, {n: b[n] for n in order})
    report = parity_check.ParityReport(difference, 2, 1.0)
    assert not report.ok


@pytest.mark.slow
def test_serving_bytes_in_session_one_broken_file_returns_row_of_nan(tmp_path):
    def unit(images):
        return {"embedding": tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))}

    saved_model.write(unit, SIZE, tmp_path / "1")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "1"))
        bytes_signature = graph.signature_def["serving_bytes"]
        feed = {bytes_signature.inputs["image_bytes"].name: [b"", GOOD[0]]}
        rows = session.run(bytes_signature.outputs["embedding"].name, feed)
    assert np.isnan(rows).any(axis=1).tolist() == [True, False]


@pytest.mark.parametrize(("place", "code"), [(0, 1), (2, None)])
def test_serving_client_broken_file_is_named(monkeypatch, capsys, tmp_path, place, code):
    spec = importlib.util.spec_from_file_location("client", ROOT / "examples/serving_client.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in paths:
        path.write_bytes(b"")
    embedding = np.arange(8.0).reshape(4, 2)
    embedding[place] = np.nan

    def ask(address, model, signature, inputs):
        if model == "person":
            return {"embedding": embedding}
        query, gallery = np.array(inputs["query"]), np.array(inputs["gallery"])
        distances = np.linalg.norm(gallery - query, axis=1)
        order = np.argsort(distances)
        return {"indices": order[None], "distances": distances[order][None]}

    monkeypatch.setattr(client, "ask_rest", ask)
    monkeypatch.setattr("sys.argv", ["serving_client.py", *map(str, paths)])
    if code:
        with pytest.raises(SystemExit, match="1"):
            client.main()
    else:
        client.main()
    out, err = capsys.readouterr()
    assert err == f"{paths[place]}: not decoded by the server\n"
    assert [line.split()[1] for line in out.splitlines()] == (
        [] if code else [str(paths[1]), str(paths[3])]
    )
