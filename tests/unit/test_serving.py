"""SavedModel export: same embeddings as in evaluation, atomic versions and parity checks."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_reid import inference, models, serving
from keras_reid.data import PersonImages, image_batches
from keras_reid.errors import InputError
from keras_reid.inference.saved_model import SIGNATURES
from keras_reid.models import heads
from keras_reid.pixels import decode
from keras_reid.serving import parity_check, versions

SIZE = (32, 16)
BOTH = ("embedding", "local")
WIDTH = 128


def photographs(count, height=SIZE[0], width=SIZE[1], seed=0):
    """Coarse colored squares: unlike noise, they keep their looks when they are resized."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 4, 3))
    return tf.cast(tf.image.resize(coarse, (height, width), "nearest"), tf.uint8).numpy()


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = models.build("tiny", 5, SIZE, weights="none")
    step = tf.function(model)
    for _ in range(30):  # the statistics of batch normalization: embeddings now point everywhere
        step(photographs(32), training=True)
    return model


def copy_of(model):
    copy = models.build("tiny", 5, SIZE, weights="none")
    copy.set_weights(model.get_weights())
    return copy


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return serving.export(model, tmp_path_factory.mktemp("export") / "person")


@pytest.fixture(scope="module")
def saved(exported):
    return inference.load(exported)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The contents of one image of each format, each of another size."""
    sizes = {"0.jpg": (64, 32), "1.png": SIZE, "2.bmp": (21, 50)}
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(photographs(1, *size, seed)[0]).save(folder / name)
    with (folder / "2.bmp").open("ab") as file:  # as in the archive of VIPeR
        file.write(b"\0\0")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def person_images(files):
    return PersonImages(files, range(len(files)), None)


def of_pixels(saved, images):
    return saved.signatures["serving_default"](images=tf.constant(images))["embedding"].numpy()


def of_files(saved, contents):
    contents = tf.constant(contents, tf.string)
    return saved.signatures["serving_bytes"](image_bytes=contents)["embedding"].numpy()


def test_export_signatures_match_documentation(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    assert set(signatures) == {"serving_default", "serving_bytes"}
    pixels, files = (signatures[n].structured_input_signature[1] for n in SIGNATURES)
    assert {n: (s.dtype, s.shape.as_list()) for n, s in pixels.items()} == {
        "images": (tf.uint8, [None, None, None, 3])
    }
    assert {n: (s.dtype, s.shape.as_list()) for n, s in files.items()} == {
        "image_bytes": (tf.string, [None])
    }
    for function in signatures.values():
        (name, output), *others = function.structured_outputs.items()
        assert (name, output.dtype, output.shape.as_list()) == (
            "embedding",
            tf.float32,
            [None, WIDTH],
        )
        assert not others


@pytest.mark.parametrize("flip", [False, True])
def test_saved_embedder_both_signatures_match_evaluation(
    model, files, person_images, tmp_path, flip
):
    expected = inference.load(model, flip=flip)(image_batches(person_images, 2, SIZE))
    saved = inference.load(serving.export(model, tmp_path, flip=flip))
    pixels = [decode(str(file))[None] for file in files]
    assert saved.embedding_dim == WIDTH
    served = [of_pixels(saved, image) for image in pixels]
    np.testing.assert_allclose(np.concatenate(served), expected, atol=1e-5)
    contents = [file.read_bytes() for file in files]
    np.testing.assert_allclose(of_files(saved, contents), expected, atol=1e-5)
    by_pillow = inference.load(model, flip=flip).embed(person_images)
    np.testing.assert_allclose(saved.embed(person_images), by_pillow, atol=1e-5)
    np.testing.assert_allclose(saved.embed(person_images, batch_size=2), by_pillow, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    cosines = (expected @ expected.T)[np.triu_indices(len(files), 1)]
    assert cosines.max() < 0.9, "different images must have different embeddings"


def test_export_flip_makes_embedding_mirror_invariant(model, saved, tmp_path):
    mirrored = inference.load(serving.export(model, tmp_path, flip=True))
    images = photographs(4)
    np.testing.assert_allclose(mirrored([images]), mirrored([images[:, :, ::-1]]), atol=1e-5)
    assert np.abs(saved([images]) - saved([images[:, :, ::-1]])).max() > 1e-2


FRESH = """
import sys

ABSENT = ("keras", "keras_reid", "tf_keras")
sys.modules.update(dict.fromkeys(ABSENT))  # importing them fails, as if they were not installed
import numpy as np
import tensorflow as tf

path, images, files, out = sys.argv[1], np.load(sys.argv[2]), sys.argv[3:-1], sys.argv[-1]
files = [open(file, "rb").read() for file in files]
module = tf.saved_model.load(path)
eager = [
    module.signatures["serving_default"](images=tf.constant(images))["embedding"].numpy(),
    module.signatures["serving_bytes"](image_bytes=tf.constant(files))["embedding"].numpy(),
]
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    graph = tf.compat.v1.saved_model.load(session, ["serve"], path)

    def serve(name, argument, value):
        signature = graph.signature_def[name]
        feed = {signature.inputs[argument].name: value}
        return session.run(signature.outputs["embedding"].name, feed)

    served = [
        serve("serving_default", "images", images),
        serve("serving_bytes", "image_bytes", files),
    ]
    rows = serve("serving_bytes", "image_bytes", [files[0], files[0][:60]])
    assert np.isfinite(rows).all(axis=1).tolist() == [True, False]
    served.append(rows[:1])
assert not any(map(sys.modules.get, ABSENT))
np.savez(out, *eager, *served)
"""


@pytest.mark.slow
def test_export_loads_with_tensorflow_alone(saved, exported, files, tmp_path):
    images = photographs(3, 40, 30)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "out.npz"
    names = [exported, tmp_path / "images.npy", *files, out]
    subprocess.run([sys.executable, "-c", FRESH, *map(str, names)], check=True, cwd=tmp_path)
    from_pixels = of_pixels(saved, images)
    from_files = of_files(saved, [file.read_bytes() for file in files])
    expected = [from_pixels, from_files, from_pixels, from_files, from_files[:1]]
    with np.load(out) as results:
        assert len(results) == len(expected)
        for result, reference in zip(results.values(), expected, strict=True):
            np.testing.assert_allclose(result, reference, atol=1e-6)


def test_export_omits_classifier_weights(model, exported):
    (kernel,) = (v for v in model.variables if v.path.startswith("logits"))
    content = (exported / "saved_model.pb").read_bytes()
    others = [v for v in model.variables if v.path.endswith("embedding/gamma")]
    assert len(others) == 1
    assert all(v.numpy().tobytes() in content for v in others)  # the weights are constants,
    assert content.count(others[0].numpy().tobytes()) == 1  # stored once for both signatures
    assert kernel.numpy().tobytes() not in content


@pytest.mark.parametrize("count", [0, 1, 5])
def test_saved_embedder_any_batch_size_returns_embeddings(saved, count):
    images = photographs(count, 50, 20)
    assert of_pixels(saved, images).shape == (count, WIDTH)
    contents = [tf.io.encode_png(image).numpy() for image in images]
    assert of_files(saved, contents).shape == (count, WIDTH)


@pytest.mark.parametrize("damage", [lambda f: f[: len(f) // 2], lambda f: b"", lambda f: b"text"])
def test_saved_embedder_broken_file_returns_row_of_nan(saved, files, damage):
    content = files[0].read_bytes()
    rows = of_files(saved, [content, damage(content)])
    assert np.isfinite(rows).all(axis=1).tolist() == [True, False]
    np.testing.assert_allclose(rows[:1], of_files(saved, [content]), atol=1e-5)


@pytest.mark.slow
def test_export_versions_increase_and_are_not_overwritten(model, tmp_path):
    assert serving.export(model, tmp_path / "a/b") == tmp_path / "a/b/1"
    assert serving.export(model, tmp_path / "a/b", version=7).name == "7"
    assert serving.export(model, tmp_path / "a/b").name == "8"
    before = (tmp_path / "a/b/7/saved_model.pb").stat()
    with pytest.raises(InputError, match=r"`version` must be new in .*, got 7. .* to write 9"):
        serving.export(model, tmp_path / "a/b", version=7)
    assert (tmp_path / "a/b/7/saved_model.pb").stat() == before
    assert sorted(os.listdir(tmp_path / "a/b")) == ["1", "7", "8"]


def test_export_concurrent_version_is_kept(model, tmp_path, monkeypatch):
    def slow(module, path, **kwargs):
        (tmp_path / "1").mkdir()
        (tmp_path / "1/saved_model.pb").write_bytes(b"the other")
        save(module, path, **kwargs)

    save = tf.saved_model.save
    monkeypatch.setattr(tf.saved_model, "save", slow)
    with pytest.raises(InputError, match=r"Directory not empty.*existing files are unchanged"):
        serving.export(model, tmp_path)
    assert (tmp_path / "1/saved_model.pb").read_bytes() == b"the other"
    assert os.listdir(tmp_path) == ["1"]


def test_export_failed_save_leaves_no_files(model, tmp_path, monkeypatch):
    def fails(module, path, **kwargs):
        assert os.path.isdir(path)
        assert not [name for name in os.listdir(tmp_path) if name.isdecimal()]
        raise tf.errors.ResourceExhaustedError(None, None, "disk full")

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        serving.export(model, tmp_path)
    assert os.listdir(tmp_path) == []


KILLED = """
import os, signal, sys
import tensorflow as tf
from keras_reid import models, serving

save = tf.saved_model.save
def save_and_die(*args, **kwargs):
    save(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

tf.saved_model.save = save_and_die
serving.export(models.build("tiny", 5, (32, 16), weights="none"), sys.argv[1])
"""


@pytest.mark.slow
def test_export_killed_process_leaves_no_version(model, tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert len(left) == 2, "the rest of it, and its lock"
    assert all(name[0] == "." for name in left), "names that TensorFlow Serving passes over"
    assert serving.export(model, tmp_path).name == "1"
    assert os.listdir(tmp_path) == ["1"]


def test_export_invalid_arguments_raises(model, tmp_path):
    with pytest.raises(InputError, match="`version` must be at least 1, got 0"):
        serving.export(model, tmp_path, version=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/\.lock` must be writable, got .*Choose another"):
        serving.export(model, tmp_path / "file")
    outputs = {"logits": model.output["logits"]}
    with pytest.raises(InputError, match="output named 'embedding'"):
        serving.export(keras.Model(model.input, outputs), tmp_path / "new")
    anywhere = keras.Input((None, None, 3), dtype="uint8")
    outputs = {"embedding": keras.layers.GlobalAveragePooling2D()(anywhere)}
    with pytest.raises(InputError, match="for a fixed image size, got None×None pixels"):
        serving.export(keras.Model(anywhere, outputs), tmp_path / "new")
    assert os.listdir(tmp_path) == ["file"]


def test_load_missing_or_broken_export_raises(exported, tmp_path):
    with pytest.raises(InputError, match=r"nowhere, which does not exist"):
        inference.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"Choose a version, {exported}"):
        inference.load(exported.parent)
    values = json.loads((exported / "export.json").read_text())
    (tmp_path / "export.json").write_text(json.dumps({**values, "files": {}}))
    (tmp_path / "saved_model.pb").write_bytes(b"\x00broken")
    with pytest.raises(InputError, match=r"must be a SavedModel, got .*Export it again"):
        inference.load(tmp_path)


def test_saved_embedder_invalid_images_raises(saved):
    with pytest.raises(InputError, match=r"must be uint8, or .* got float32 from 0 to 1\. Convert"):
        saved.embed(photographs(2).astype("float32") / 255)
    with pytest.raises(InputError, match="`images` must be at least 1, got 0"):
        saved.embed([])


def test_parity_unchanged_export_is_ok(model, exported, person_images):
    for images in (person_images, photographs(40, 45, 33)):
        report = serving.parity(model, exported, images)
        assert report.ok
        assert report.images == len(images)
        assert report.max_difference < 1e-5
        assert str(report).startswith("parity ok: ")
        assert str(report).endswith("images, tolerance 0.0001")
    with pytest.raises(InputError, match="`images` must be at least 1"):
        serving.parity(model, exported, photographs(0))


def test_parity_weights_changed_after_export_fails(model, exported):
    changed = copy_of(model)
    assert serving.parity(changed, exported, photographs(4)).ok
    (kernel, *_) = changed.trainable_variables
    kernel.assign(kernel + 0.01)
    report = serving.parity(changed, exported, photographs(4))
    assert not report.ok
    assert "FAILED" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("signature", ["serving_default", "serving_bytes"])
def test_parity_single_differing_signature_fails(model, exported, monkeypatch, signature):
    served = parity_check._served

    def wrong(saved, images):
        right = saved.signatures[signature]

        def function(**inputs):
            return {name: output + 1e-3 for name, output in right(**inputs).items()}

        saved.signatures = {**saved.signatures, signature: function}
        return served(saved, images)

    monkeypatch.setattr(parity_check, "_served", wrong)
    report = serving.parity(model, exported, photographs(4))
    assert not report.ok
    assert report.max_difference == pytest.approx(1e-3, rel=0.1)
    assert serving.parity(model, exported, photographs(4), tolerance=2e-3).ok


# --- Local features as a second output


@pytest.fixture(scope="module")
def with_local(model, tmp_path_factory):
    """A model with local features of its own, exported with and without the mirror image."""
    keras.utils.set_random_seed(1)
    model = models.build("tiny", 5, SIZE, weights="none", heads=[heads.LocalHead(4, 16)])
    model(photographs(32), training=True)
    folder = tmp_path_factory.mktemp("local")
    versions = {
        flip: serving.export(model, folder, flip=flip, local=True) for flip in (False, True)
    }
    return model, versions


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("flip", [False, True])
def test_export_local_features_are_second_output(with_local, files, flip):
    model, versions = with_local
    saved = inference.load(versions[flip], outputs=BOTH)
    expected = inference.load(model, flip=flip, outputs=BOTH)([photographs(3)])
    for received in (
        saved([photographs(3)]),
        saved.embed([photographs(2), photographs(3)[2:]]),
    ):
        assert set(received) == {"embedding", "local"}
        assert received["local"].shape == (3, 4, 16)
        for name, output in received.items():
            np.testing.assert_allclose(output, expected[name], atol=1e-5)
    assert saved.embed(files)["local"].shape == (3, 4, 16)
    alone = saved.select("embedding")([photographs(3)])
    np.testing.assert_allclose(alone, expected["embedding"], atol=1e-5)
    report = serving.parity(model, versions[flip], photographs(4), flip=flip)
    assert report.ok, str(report)


def test_parity_changed_local_features_fails(with_local):
    model, versions = with_local
    layer = model.get_layer("local_conv")
    kept = layer.get_weights()
    layer.set_weights([kernel + 0.1 for kernel in kept])
    assert not serving.parity(model, versions[False], photographs(4)).ok
    layer.set_weights(kept)
    assert serving.parity(model, versions[False], photographs(4)).ok


@pytest.mark.slow
def test_export_stripes_view_passes_parity(model, tmp_path):
    view = models.stripes(model, 2)
    version = serving.export(view, tmp_path / "stripes", local=True)
    assert inference.load(version, outputs=BOTH)([photographs(3)])["local"].shape == (3, 2, WIDTH)
    assert serving.parity(view, version, photographs(4)).ok


def test_saved_embedder_without_local_features_raises(saved, model, tmp_path):
    with pytest.raises(InputError, match=r"one of embedding, got 'local'\. Export .* local=True"):
        saved.select("embedding", "local")
    with pytest.raises(InputError, match="named 'local'"):
        serving.export(model, tmp_path / "nothing", local=True)


def test_parity_half_precision_model_fails(model, exported):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = copy_of(model)
    finally:
        keras.config.set_dtype_policy("float32")
    report = serving.parity(half, exported, photographs(4))
    assert not report.ok
    assert report.max_difference < 0.1, "it is the same model, computed coarsely"


def test_parity_flip_mismatch_fails(model, exported):
    assert not serving.parity(model, exported, photographs(4), flip=True).ok


def test_parity_other_embedding_size_or_nan_fails(model, exported):
    narrow = models.build("tiny", 5, SIZE, weights="none", width=8)
    report = serving.parity(narrow, exported, photographs(4))
    assert (report.ok, report.max_difference) == (False, float("inf"))
    broken = copy_of(model)
    neck = broken.get_layer("embedding")
    neck.gamma.assign(neck.gamma * np.nan)
    report = serving.parity(broken, exported, photographs(4))
    assert not report.ok
    assert np.isnan(report.max_difference)


@pytest.mark.slow
@pytest.mark.real
def test_parity_real_images_with_pretrained_backbone_is_ok(real_data, tmp_path):
    paths = sorted((real_data / "data/market1501-mini/query").glob("*.jpg"))[:8]
    backbone = str(real_data / "weights/mobilenetv2_imagenet.keras")
    model = models.build(backbone, 10, (128, 64))
    images = PersonImages(paths, np.arange(len(paths)), None)
    report = serving.parity(model, serving.export(model, tmp_path), images)
    assert report.ok, report


def test_new_version_follows_highest_number(tmp_path):
    for folder in ("3", "10", "draft"):
        (tmp_path / folder).mkdir()
    version = versions.new_version(tmp_path, None, lambda folder: (folder / "x").write_text(""))
    assert version == tmp_path / "11"
    assert (version / "x").exists()
