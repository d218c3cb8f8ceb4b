"""Embedders of every source and runtime: parity, preprocessing, fingerprints and errors."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from networks import write_rows
from onnx import TensorProto, helper

from keras_reid import inference, models, serving
from keras_reid.data import PersonImages, synthetic
from keras_reid.data.readers import load
from keras_reid.errors import InputError
from keras_reid.inference.preprocessing import preprocessing_of
from keras_reid.training.runs import Run

SIZE = (32, 16)
MEAN, SCALE = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
SETTINGS: dict[str, Any] = {"channel_order": "bgr", "mean": MEAN, "scale": SCALE}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)
FLAGS = {"dataset": "synthetic", "data_dir": "drawn", "flip": True}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- Sources of one Keras model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 5, SIZE, weights="none")
    for seed in range(5):
        random = np.random.default_rng(seed)
        model(random.integers(0, 256, (32, *SIZE, 3), np.uint8), training=True)
    return model


@pytest.fixture(scope="module")
def expected(model: keras.Model) -> np.ndarray:
    both = [unit(model(x)["embedding"].numpy()) for x in (PIXELS, PIXELS[:, :, ::-1])]
    raw = [model(x)["embedding"].numpy() for x in (PIXELS, PIXELS[:, :, ::-1])]
    assert np.abs(both[0] - both[1]).max() > 1e-2
    return unit(sum(raw))


@pytest.fixture(scope="module")
def run_folder(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(tmp_path_factory.mktemp("run") / "run")
    run.start(FLAGS)
    run.save_models([model])
    run.finish({"mAP": 0.5})
    return run.directory


FORMATS = [
    "saved_model",
    "litert",
    pytest.param("onnx", marks=pytest.mark.slow),
    pytest.param("openvino", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest, model: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return serving.export(model, folder / "person", flip=True, format=request.param)


def test_load_keras_sources_agree(
    model: keras.Model, run_folder: Path, expected: np.ndarray
) -> None:
    fingerprint = inference.fingerprint(model, flip=True)
    file = run_folder / "model.keras"
    for embedder in (
        inference.load(run_folder),
        inference.load(str(run_folder), "keras"),
        inference.load(inference.Source.of(run_folder)),
        inference.load(file, flip=True),
        inference.load(model, flip=True),
    ):
        np.testing.assert_allclose(embedder.embed(PIXELS), expected, atol=1e-5)
        assert embedder.fingerprint == fingerprint
        assert (embedder.image_size, embedder.embedding_dim) == (SIZE, expected.shape[1])
        assert embedder.pretrained is None
    assert inference.load(file).fingerprint == inference.fingerprint(model, flip=False)
    assert inference.load(run_folder).source.settings == FLAGS
    assert inference.load(run_folder).source.run.metrics == {"mAP": 0.5}


def test_load_export_agrees_with_its_model(
    model: keras.Model, exported: Path, expected: np.ndarray
) -> None:
    embedder = inference.load(exported)
    np.testing.assert_allclose(embedder.embed(PIXELS), expected, atol=1e-4)
    np.testing.assert_allclose(embedder.embed(PIXELS, batch_size=2), expected, atol=1e-4)
    assert embedder.fingerprint == inference.fingerprint(model, flip=True)
    assert (embedder.image_size, embedder.embedding_dim) == (SIZE, expected.shape[1])


def test_load_exported_file_outside_its_folder_agrees(
    exported: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    files = [file for file in exported.iterdir() if file.suffix in (".onnx", ".xml", ".tflite")]
    if not files:
        pytest.skip("a SavedModel is a folder")
    (file,) = files
    assert inference.load(file).fingerprint == inference.load(exported).fingerprint
    for other in exported.glob("model.*"):
        shutil.copy(other, tmp_path)
    with pytest.raises(InputError, match=r"does not state channel_order of its input\. .*=rgb\."):
        inference.load(tmp_path / file.name)
    for runtime in inference.RUNTIMES[file.suffix]:
        embedder = inference.load(tmp_path / file.name, runtime, channel_order="rgb")
        np.testing.assert_allclose(embedder.embed(PIXELS), expected, atol=1e-4)
        assert embedder.fingerprint != inference.load(exported).fingerprint


def test_load_pretrained_by_both_names_returns_card() -> None:
    embedder = inference.load()
    assert embedder.pretrained is models.PRETRAINED["person-mobilenetv2"]
    assert inference.Source.of("person-mobilenetv2") == embedder.source
    assert embedder.embedding_dim == embedder.pretrained.embedding_dim
    # Galleries of released versions have it.
    assert embedder.fingerprint == "0b2a29e7bec46efc"


def test_embed_tracklets_of_export_are_means(
    exported: Path, run_folder: Path, tmp_path: Path
) -> None:
    synthetic.generate(tmp_path / "drawn", 2, 2, size=SIZE)
    images = load("market1501", str(tmp_path / "drawn")).gallery[:6]
    images = PersonImages(images.path, [0, 0, 0, 1, 1, 1], None, {"tracklet": [3, 3, 3, 4, 4, 4]})
    found = inference.load(exported).embed(images)
    assert found.shape[0] == 2
    np.testing.assert_allclose(found, inference.load(run_folder).embed(images), atol=1e-3)


@pytest.mark.parametrize("kind", ["tracklets", "keypoints"])
def test_load_export_of_several_inputs_agrees_with_its_model(tmp_path: Path, kind: str) -> None:
    synthetic.generate(tmp_path / "drawn", 2, 2, size=SIZE)
    images = load("market1501", str(tmp_path / "drawn")).gallery[:6]
    if kind == "tracklets":
        columns = {"tracklet": np.array([3, 3, 3, 4, 4, 4])}
        model = models.build_tracklet("tiny", 3, image_size=SIZE, weights="none")
    else:
        points = np.random.default_rng(0).random((6, 17, 3)).astype(np.float32)
        columns = {"keypoints": points}
        pose = models.heads.PoseHead(17, 8)
        model = models.build("tiny", 3, SIZE, weights="none", heads=[pose])
    of_persons = PersonImages(images.path, [0, 0, 0, 1, 1, 1], None, columns)
    embedder = inference.load(serving.export(model, tmp_path / "export"))
    expected = inference.load(model).embed(of_persons, frames=2)
    np.testing.assert_allclose(embedder.embed(of_persons, frames=2), expected, atol=1e-5)
    with pytest.raises(InputError, match=rf"with the columns {kind[:8]}.*, got ndarray"):
        embedder.embed(PIXELS)
    if kind == "keypoints":
        with pytest.raises(InputError, match=r"columns keypoints for .*, got PersonImages without"):
            embedder.embed(PersonImages(images.path, [0, 0, 0, 1, 1, 1], None))


# --- Networks of other programs


def rows_of(pixels: np.ndarray) -> np.ndarray:
    """Embeddings of `write_rows` with SETTINGS."""
    values = (pixels[..., ::-1].astype(np.float64) - MEAN) / SCALE
    return unit(values.mean(axis=2).transpose(0, 2, 1).reshape(len(pixels), -1))


@pytest.mark.parametrize("runtime", ["auto", "onnx", "openvino"])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_load_onnx_file_embeds_preprocessed_images(
    tmp_path: Path, runtime: str, batch: int | str
) -> None:
    file = write_rows(tmp_path / "rows.onnx", [batch, 3, *SIZE])
    embedder = inference.load(file, runtime, **SETTINGS)
    found = embedder.embed(PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows_of(PIXELS), atol=1e-5)
    assert (embedder.image_size, embedder.embedding_dim) == (SIZE, 3 * SIZE[0])


def test_load_onnx_file_of_any_size_needs_input_size(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.onnx", ["n", 3, "h", "w"])
    with pytest.raises(InputError, match="state input_size, channel_order, scale, mean of its"):
        inference.load(file)
    embedder = inference.load(file, input_size=SIZE, **SETTINGS)
    np.testing.assert_allclose(embedder.embed(PIXELS), rows_of(PIXELS), atol=1e-5)


@pytest.mark.parametrize("converted", [True, False])
def test_load_openvino_file_reads_settings_of_conversion(tmp_path: Path, converted: bool) -> None:
    openvino = pytest.importorskip("openvino")
    write_rows(tmp_path / "rows.onnx", [1, 3, *SIZE])
    ir = openvino.convert_model(tmp_path / "rows.onnx")
    if converted:
        for name, value in (("reverse_input_channels", "True"), ("mean_values", "x[1,2,3]")):
            ir.set_rt_info(value, ["conversion_parameters", name])
    openvino.save_model(ir, tmp_path / "rows.xml", compress_to_fp16=False)
    if not converted:
        with pytest.raises(InputError, match="does not state channel_order, scale, mean"):
            inference.load(tmp_path / "rows.xml")
    # Arguments replace the settings in the file.
    embedder = inference.load(tmp_path / "rows.xml", **SETTINGS)
    np.testing.assert_allclose(embedder.embed(PIXELS), rows_of(PIXELS), atol=1e-5)
    if converted:
        plain = inference.load(tmp_path / "rows.xml")
        assert plain.preprocessing.channel_order == "bgr"
        assert plain.fingerprint != embedder.fingerprint


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")
@pytest.mark.parametrize("quantized", [False, True])
def test_load_litert_file_without_signature_embeds(tmp_path: Path, quantized: bool) -> None:
    import tensorflow as tf

    pytest.importorskip("ai_edge_litert")

    @tf.function(input_signature=[tf.TensorSpec((1, *SIZE, 3), tf.float32)])
    def rows(image: Any) -> Any:
        return tf.reduce_mean(image, 2)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([rows.get_concrete_function()])
    if quantized:
        values = (PIXELS[..., ::-1].astype(np.float32) - MEAN) / SCALE
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None].astype(np.float32)] for x in values)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    (tmp_path / "rows.tflite").write_bytes(converter.convert())
    embedder = inference.load(tmp_path / "rows.tflite", **SETTINGS)
    expected = rows_of(PIXELS).reshape(5, 3, -1).transpose(0, 2, 1).reshape(5, -1)
    tolerance = 2e-2 if quantized else 1e-5
    np.testing.assert_allclose(embedder.embed(PIXELS), expected, atol=tolerance)


def test_fingerprint_of_file_changes_with_content_and_settings(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.onnx", ["n", 3, *SIZE])
    first = inference.load(file, **SETTINGS)
    copied = shutil.copy(file, tmp_path / "copy.onnx")
    assert inference.load(copied, **SETTINGS).fingerprint == first.fingerprint
    assert len(first.fingerprint) == 16
    others = [
        inference.load(file, **{**SETTINGS, name: value}).fingerprint
        for name, value in (("channel_order", "rgb"), ("mean", 1), ("scale", 2))
    ]
    write_rows(tmp_path / "copy.onnx", [1, 3, *SIZE])
    others.append(inference.load(copied, **SETTINGS).fingerprint)
    assert len({first.fingerprint, *others}) == 5


@pytest.mark.parametrize(
    ("shape", "dtype", "settings", "message"),
    [
        ((1, 3, 8, 4), "float32", {}, r"net does not state channel_order, scale, mean of its"),
        ((1, 3, 8, 4), "uint8", {}, r"not state channel_order of its input"),
        ((1, None, 8, None), "uint8", {}, r"state .*layout of its input\. .* --layout=nchw\."),
        (
            (1, 3, 8, 4),
            "uint8",
            {"layout": "nhwc"},
            r"one of nchw, got 'nhwc'\. .*1×3×8×4",
        ),
        ((1, 3, 8, 4), "uint8", {"input_size": (4, 8)}, "`input_size` must be 8×4 .* got 4×8"),
        ((1, 3, None, None), "uint8", {"input_size": (4,)}, r"be \(height, width\), .* got 4\."),
        (
            (1, 3, 8, 4),
            "uint8",
            {"channel_order": "hsv"},
            "`channel_order` must be one of rgb",
        ),
        (
            (1, 3, 8, 4),
            "float32",
            {**SETTINGS, "mean": (1, 2)},
            "`mean` must be one of 1, 3",
        ),
        ((1, 3, 8, 4), "float32", {**SETTINGS, "scale": 0}, "`scale` must be positive"),
        ((1, 4, 8, 4), "uint8", {}, "images of 3 channels.* got the shape 1×4×8×4"),
        ((None, 8), "float32", {}, "images of 3 channels.* got the shape any×8"),
    ],
)
def test_preprocessing_missing_or_invalid_settings_raise(
    shape: tuple[int | None, ...], dtype: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        preprocessing_of("net", shape, dtype, {}, settings)


# --- Errors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "`model` must be a run folder, .*, got .*nowhere, which does not exist"),
        ("table.csv", b"", r"`model` must be .*, got .*table\.csv"),
        ("net.keras", b"no", r"must be a Keras model in a \.keras file"),
        ("net.onnx", b"no", r"complete model with one input for onnx, got '"),
        ("net.tflite", b"no", r"complete model with one input for litert"),
        ("net.xml", b"<net/>", r"complete model with one input for openvino"),
    ],
)
def test_load_missing_or_broken_file_raises(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        inference.load(tmp_path / name)


def test_load_folder_of_versions_raises_with_version(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got .* Check the path"):
        inference.load(tmp_path)
    for version in ("3", "10"):
        (tmp_path / version).mkdir()
    with pytest.raises(InputError, match=rf"Choose a version, {tmp_path / '10'}"):
        inference.load(tmp_path)


@pytest.mark.parametrize(
    ("package", "suffix", "runtime", "extra"),
    [
        ("onnxruntime", ".onnx", "onnx", "onnx"),
        ("openvino", ".onnx", "openvino", "openvino"),
        ("openvino", ".xml", "auto", "openvino"),
        ("ai_edge_litert.interpreter", ".tflite", "auto", "litert"),
    ],
)
def test_load_missing_package_raises_with_install_command(
    tmp_path: Path, monkeypatch: Any, package: str, suffix: str, runtime: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"net{suffix}").write_bytes(b"")
    message = (
        rf"{package.split('.', maxsplit=1)[0]} is not installed. Run pip install '.\[{extra}\]'"
    )
    with pytest.raises(InputError, match=message):
        inference.load(tmp_path / f"net{suffix}", runtime)


def test_load_arguments_of_other_sources_raise(
    model: keras.Model, exported: Path, run_folder: Path, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "rows.onnx", ["n", 3, *SIZE])
    for source, arguments, message in (
        (model, {"mean": 0}, "`mean` does not apply to Keras models, got 0"),
        (run_folder, {"input_size": SIZE}, "`input_size` does not apply to Keras models"),
        (run_folder, {"runtime": "onnx"}, "has no conversion for onnx"),
        (run_folder, {"member": "2"}, "`member` must be one of 1, got '2'"),
        (exported, {"flip": True}, "`flip` does not apply to exports and network files"),
        (exported, {"layout": "nchw"}, "`layout` does not apply to exports"),
        (exported, {"outputs": ["local"]}, "`outputs` must be one of embedding, got 'local'"),
        (file, {"member": "2", **SETTINGS}, "`member` does not apply to exports and network"),
        (file, {"runtime": "litert", **SETTINGS}, "`runtime` must be one of auto, onnx, openvino"),
        (
            "pretrained",
            {"member": "2"},
            "`member` must be 1, got '2'. Only runs",
        ),
    ):
        with pytest.raises(InputError, match=message):
            inference.load(source, **arguments)


def test_load_network_of_two_outputs_raises(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.onnx", ["n", 3, *SIZE])
    two = onnx.load(file)
    two.graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, None))
    onnx.save(two, file)
    with pytest.raises(InputError, match="one output, or one named embedding, got out, rows"):
        inference.load(file, **SETTINGS)


# --- Imports

ALONE = """
import importlib, pkgutil, sys
from keras_reid import inference
for module in pkgutil.iter_modules(inference.__path__):
    importlib.import_module(f"keras_reid.inference.{module.name}")
assert not {"keras", "tensorflow"} & {*sys.modules}
embedder = inference.load(sys.argv[1], channel_order="rgb", scale=1, mean=0)
print(embedder.fingerprint, embedder.run(__import__("numpy").zeros((2, 32, 16, 3), "uint8")))
assert not {"keras", "tensorflow"} & {*sys.modules}
"""


def test_inference_imports_neither_keras_nor_tensorflow(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.onnx", ["n", 3, *SIZE])
    subprocess.run([sys.executable, "-c", ALONE, str(file)], check=True)


# --- Real images


@pytest.mark.real
def test_load_retail_network_ranks_real_images(real_data: Path) -> None:
    from keras_reid import evaluation

    pytest.importorskip("openvino")
    (file,) = (real_data / "weights/retail-0277").glob("*.xml")
    embedder = inference.load(file)
    assert (embedder.image_size, embedder.embedding_dim) == ((256, 128), 256)
    dataset = load("csv", str(real_data / "data/cuhk-multi/cuhk01-test.csv"))
    query, gallery = dataset.query[:20], dataset.gallery[:160]
    features = embedder.embed(query), embedder.embed(gallery)
    np.testing.assert_allclose(np.linalg.norm(features[0], axis=1), 1, atol=1e-5)
    result = evaluation.rank(features, query, gallery, "market1501")
    assert result.rank(1) >= 0.9
    assert result.mAP >= 0.9
