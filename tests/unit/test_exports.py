"""Export formats, export metadata, warm-up requests and the exported ranker."""

import json
import random
import sys

import keras
import numpy as np
import oracle_reranking
import pytest
import tensorflow as tf

from keras_reid import data, inference, models, reranking, serving
from keras_reid.errors import InputError
from keras_reid.inference.metadata import Metadata
from keras_reid.inference.saved_model import SIGNATURES
from keras_reid.models import heads
from keras_reid.serving import bn_folding

SIZE = (32, 16)
BOTH = ("embedding", "local")
OTHERS = [("onnx", "float32"), ("openvino", "float32")]
OTHERS += [("litert", precision) for precision in serving.QUANTIZATIONS]


def photographs(count, height=40, width=24, seed=0):
    """Smooth colors, which 8 bits can be calibrated on."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 5, 3, 3)).astype(np.float32)
    return np.round(tf.image.resize(coarse, (height, width))).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    """Embedder with local features, and normalizations with statistics of images."""
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 5, SIZE, weights="none", heads=[heads.LocalHead(4, 16)])
    for seed in range(20):
        model(photographs(32, *SIZE, seed), training=True)
    return model


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            each,
            id="-".join(each),
            marks=() if each == ("litert", "float32") else pytest.mark.slow,
        )
        for each in OTHERS
    ],
)
def exported(request, model, tmp_path_factory):
    name, precision = request.param
    return precision, serving.export(
        model,
        tmp_path_factory.mktemp(name) / "person",
        flip=True,
        local=True,
        format=name,
        quantization=precision,
        calibration=photographs(50, *SIZE),
    )


# --- Folding


@pytest.mark.first(1)
@pytest.mark.parametrize("backbone", ["tiny", "mobilenetv2", "resnet50"])
def test_folded_network_keeps_outputs(backbone):
    keras.utils.set_random_seed(0)
    net = models.outputs_at_test(models.build(backbone, 5, (64, 32), weights="none"))
    random = np.random.default_rng(0)
    for variable in net.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(random.normal(0, 0.1, variable.shape))
    images = photographs(4, 64, 32)
    before = net(images, training=False)["embedding"].numpy()
    folded = bn_folding.folded(net)
    norms = [layer for layer in every_layer(folded) if "BatchNorm" in type(layer).__name__]
    assert len(norms) == 1, "the neck alone is behind no convolution"
    assert len(folded.variables) < len(net.variables)
    after = folded(images, training=False)["embedding"].numpy()
    np.testing.assert_allclose(after, before, atol=2e-4 * np.abs(before).max())
    constant = bn_folding.constant(folded)(images)["embedding"].numpy()
    np.testing.assert_allclose(constant, after, atol=1e-5 * np.abs(before).max())
    np.testing.assert_array_equal(net(images, training=False)["embedding"].numpy(), before)


def every_layer(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from every_layer(layer)
        yield layer


def test_folded_shared_or_activated_convolution_is_not_folded():
    images = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(4, 3, name="read_twice")(images)
    norm = keras.layers.BatchNormalization(name="a")(conv)
    active = keras.layers.Conv2D(4, 1, activation="relu", name="active")(norm + conv)
    out = keras.layers.BatchNormalization(name="b")(active)
    out = keras.layers.BatchNormalization(name="c")(keras.layers.Conv2D(4, 1, name="plain")(out))
    net = keras.Model(images, {"embedding": keras.layers.GlobalAveragePooling2D()(out)})
    random = np.random.default_rng(0)
    for layer in net.layers:
        layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    folded = bn_folding.folded(net)
    kinds = {layer.name: type(layer).__name__ for layer in folded.layers}
    assert [kinds[name] == "BatchNormalization" for name in "abc"] == [True, True, False]
    x = random.standard_normal((2, 8, 8, 3)).astype(np.float32)
    for ours, theirs in zip(net(x).values(), folded(x).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


# --- Formats


def test_export_formats_match_model_outputs(model, exported):
    precision, version = exported
    tolerance, _ = serving.TOLERANCES[precision]
    report = serving.parity(model, version, photographs(9), tolerance, flip=True)
    assert report.ok, str(report)
    embedder = inference.load(model, flip=True, outputs=BOTH)
    expected = embedder([photographs(9, *SIZE)])
    received = inference.load(version, outputs=BOTH)([photographs(9, *SIZE)])
    assert set(received) == {"embedding", "local"}
    for name, output in received.items():
        assert output.shape == expected[name].shape
        cosines = (output * expected[name]).sum(-1)
        assert cosines.min() > (0.95 if precision == "int8" else 0.9999), name


@pytest.mark.first(2)
def test_export_formats_accept_any_batch_and_image_size(exported, tmp_path):
    _, version = exported
    saved = inference.load(version, outputs=BOTH)
    for count in (1, 3):
        outputs = saved.embed(photographs(count, 50, 20))
        assert outputs["embedding"].shape == (count, saved.embedding_dim)
        assert outputs["local"].shape == (count, 4, 16)
    files = []
    for i, (height, width) in enumerate([(20, 30), (64, 32)]):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(tf.io.encode_png(photographs(1, height, width)[0]).numpy())
    embeddings = saved.embed(files, 1)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-2)
    with pytest.raises(InputError, match="must be uint8"):
        saved.embed(np.full((1, 8, 8, 3), 0.5, np.float32))


def test_export_metadata_records_settings(model, exported):
    precision, version = exported
    values = json.loads((version / "export.json").read_text())
    assert values["precision"] == precision
    assert values["image_size"] == list(SIZE)
    assert values["flip"] is True
    assert values["local"] == [4, 16]
    assert values["embedding_dim"] == inference.load(version).embedding_dim
    assert values["fingerprint"] == inference.fingerprint(model, True, precision)


def test_load_truncated_export_raises(exported):
    _, version = exported
    (file,) = (f for f in version.iterdir() if f.suffix in (".onnx", ".tflite", ".xml"))
    content = file.read_bytes()
    try:
        file.write_bytes(content[: len(content) // 3])
        with pytest.raises(InputError, match=r"has changed\. Copy it again"):
            inference.load(version)
    finally:
        file.write_bytes(content)
    assert inference.load(version)


@pytest.mark.nightly
def test_load_flipped_bit_raises(exported):
    """In every file of an export, wherever it is."""
    _, version = exported
    chance = random.Random(0)
    for file in (f for f in version.rglob("*") if f.is_file() and f.name != "export.json"):
        content = file.read_bytes()
        for _ in range(5):
            broken = bytearray(content)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            file.write_bytes(broken)
            with pytest.raises(InputError, match=rf"{file.name} is missing or has changed"):
                inference.load(version)
        file.write_bytes(content)
    assert inference.load(version)


def test_export_failed_check_leaves_no_version_folder(model, tmp_path):
    seen = []

    def check(folder):
        seen.append(inference.load(folder).fingerprint)
        assert not [entry for entry in (tmp_path / "x").iterdir() if entry.name.isdecimal()]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serving.export(model, tmp_path / "x", check=check)
    assert seen == [inference.fingerprint(model)]
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ('{"a": 1}', "must describe an export"),
        (None, "newer keras_reid"),
    ],
)
def test_load_broken_metadata_raises(model, tmp_path, text, message):
    version = serving.export(model, tmp_path)
    values = json.loads((version / "export.json").read_text())
    text = json.dumps({**values, "format": "telepathy"}) if text is None else text
    (version / "export.json").write_text(text)
    with pytest.raises(InputError, match=message):
        inference.load(version)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "caffe"}, "`format` must be one of saved_model, onnx, .* got 'caffe'"),
        ({"format": "litert", "quantization": "int4"}, "one of float32, float16, int8, got"),
        ({"format": "onnx", "quantization": "float16"}, "one of float32, got 'float16'. .* litert"),
        ({"format": "litert", "quantization": "int8"}, "calibration` must be at least 1, got 0"),
    ],
)
def test_export_invalid_options_raise(model, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        serving.export(model, tmp_path / "new", **options)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_export_missing_package_raises_with_install_command(model, tmp_path, monkeypatch, name):
    package = {"onnx": "tf2onnx", "openvino": "openvino"}[name]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"{package} is not installed. Run pip install '.\[{name}\]'"
    ):
        serving.export(model, tmp_path, format=name)
    assert list(tmp_path.iterdir()) == []


# --- Fingerprints


def test_fingerprint_changes_only_when_embeddings_change(model, tmp_path):
    first = inference.fingerprint(model)
    assert first == inference.fingerprint(model) == inference.fingerprint(model, False, "float32")
    others = {inference.fingerprint(model, True), inference.fingerprint(model, False, "int8")}
    assert len({first, *others}) == 3
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert inference.fingerprint(again) == first
    kernel = again.get_layer("logits").kernel
    kernel.assign(kernel + 1)  # is not part of the embedder
    assert inference.fingerprint(again) == first
    gamma = again.get_layer("embedding").gamma
    gamma.assign(gamma * 1.001)
    assert inference.fingerprint(again) != first


def test_load_export_without_metadata_raises(model, tmp_path):
    version = serving.export(model, tmp_path)
    assert inference.load(version).fingerprint == inference.fingerprint(model)
    (version / "export.json").unlink()
    with pytest.raises(InputError, match=r"export\.json \(an export\), got"):
        inference.load(version)


# --- Warm-up requests


def requests_of(version):
    from tensorflow_serving.apis import prediction_log_pb2

    file = version / "assets.extra/tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
        yield request.model_spec.name, request.model_spec.signature_name, inputs


def test_export_warm_up_requests_run_on_all_signatures(model, tmp_path):
    version = serving.export(model, tmp_path / "person")
    signatures = tf.saved_model.load(str(version)).signatures
    asked = list(requests_of(version))
    assert {(name, signature) for name, signature, _ in asked} == {
        ("person", signature) for signature in SIGNATURES
    }
    for _, signature, inputs in asked:
        embedding = signatures[signature](**inputs)["embedding"].numpy()
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_export_without_serving_api_writes_no_warm_up_requests(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    version = serving.export(model, tmp_path)
    assert not (version / "assets.extra").exists()
    assert serving.parity(model, version, photographs(2)).ok


# --- The ranker


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker") / "person-ranker"
    version = serving.export_ranker(folder, 8, k1=6, k2=3, lambda_value=0.4)
    return version, tf.saved_model.load(str(version)).signatures


def asked(function, query, gallery, k):
    outputs = function(
        query=tf.constant(query, tf.float32),
        gallery=tf.constant(gallery, tf.float32),
        k=tf.constant(k),
    )
    return outputs["indices"].numpy(), outputs["distances"].numpy()


@pytest.mark.first(3)
@pytest.mark.parametrize("signature", ["rank", "serving_default"])
@pytest.mark.parametrize("k", [1, 5, 40, 99])
def test_ranker_matches_brute_force(ranker, signature, k):
    random = np.random.default_rng(0)
    query, gallery = random.standard_normal((3, 8)), random.standard_normal((40, 8))
    indices, distances = asked(ranker[1][signature], query, gallery, k)
    expected = np.sqrt(((query[:, None] - gallery) ** 2).sum(-1))
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(distances, np.take_along_axis(expected, order, 1), atol=1e-5)


def test_ranker_ties_are_ordered_by_index(ranker):
    gallery = np.ones((6, 8))
    gallery[3] = 0
    indices, distances = asked(ranker[1]["rank"], np.ones((1, 8)), gallery, 6)
    assert indices.tolist() == [[0, 1, 2, 4, 5, 3]]
    np.testing.assert_allclose(distances[0], [0, 0, 0, 0, 0, 8**0.5], atol=1e-6)


@pytest.mark.parametrize("k", [4, 60])
def test_ranker_k_reciprocal_matches_oracle(ranker, k):
    random = np.random.default_rng(1)
    query, gallery = random.standard_normal((5, 8)), random.standard_normal((60, 8))
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    indices, distances = asked(ranker[1]["rerank"], query, gallery, k)
    expected = oracle_reranking.k_reciprocal(query, gallery, 6, 3, 0.4)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, 1), distances, atol=1e-5)


def test_ranker_export_has_metadata_and_warm_up_requests(ranker):
    version, signatures = ranker
    values = json.loads((version / "export.json").read_text())
    assert values == {
        "format": "saved_model",
        "embedding_dim": 8,
        "reranking": "k_reciprocal",
        "k1": 6,
        "k2": 3,
        "lambda_value": 0.4,
    }
    for name, signature, inputs in requests_of(version):
        assert name == "person-ranker"
        assert signatures[signature](**inputs)["indices"].shape == (2, 10)


@pytest.mark.parametrize("signature", ["rank", "rerank"])
def test_ranker_non_finite_rows_are_ranked_last_as_missing(ranker, signature):
    random = np.random.default_rng(2)
    query, gallery = random.standard_normal((5, 8)), random.standard_normal((40, 8))
    kept, rows = [0, 1, 3, 4], np.r_[1:20, 21:40]
    best, nearest = asked(ranker[1][signature], query[kept], gallery[rows], 40)
    query[2, 1], gallery[0], gallery[20, 3] = np.nan, np.nan, np.inf
    indices, distances = asked(ranker[1][signature], query, gallery, 40)
    np.testing.assert_array_equal(indices[kept, :38], rows[best])
    np.testing.assert_allclose(distances[kept, :38], nearest, atol=1e-5)
    assert (indices[:, 38:] == -1).all()
    assert (indices[2] == -1).all()
    assert np.isposinf(distances[:, 38:]).all()
    assert np.isposinf(distances[2]).all()
    indices, distances = asked(ranker[1][signature], query, np.full((3, 8), np.nan), 3)
    assert (indices == -1).all()
    assert np.isposinf(distances).all()


@pytest.mark.nightly
@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["average_query_expansion", "alpha_query_expansion", "ecn", "gnn"])
def test_ranker_graph_rerankers_match_library(tmp_path, name):
    random = np.random.default_rng(3)
    query, gallery = (random.standard_normal((n, 8)).astype(np.float32) for n in (4, 50))
    version = serving.export_ranker(tmp_path / "ranker", 8, reranking=name)
    values = json.loads((version / "export.json").read_text())
    assert values["reranking"] == name
    assert len(values) > 3  # includes the defaults
    rerank = tf.saved_model.load(str(version)).signatures["rerank"]
    indices, distances = asked(rerank, query, gallery, 50)
    expected = reranking.RERANKERS[name](query, gallery).matrix()
    np.testing.assert_allclose(np.take_along_axis(expected, indices, 1), distances, atol=1e-5)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 0}, "`embedding_dim` must be at least 1, got 0"),
        ({"k1": 0}, "`k1` must be"),
        ({"lambda_value": 2}, r"`lambda_value` must be in \[0, 1\], got 2"),
        (
            {"reranking": "diffusion"},
            "one of k_reciprocal, average_query_expansion, .*got 'diffusion'",
        ),
        (
            {"reranking": "ecn", "k1": 3},
            "must be one of k, t, q, got 'k1'. These are the options of ecn",
        ),
    ],
)
def test_export_ranker_invalid_options_raise(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        serving.export_ranker(tmp_path / "new", **{"embedding_dim": 8, **options})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_ranker_with_stored_gallery_matches_passed_gallery(tmp_path):
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(3, 8)), random.normal(size=(30, 8))
    version = serving.export_ranker(tmp_path / "ranker", 8, gallery=gallery, k1=6, k2=3)
    assert json.loads((version / "export.json").read_text())["gallery_size"] == 30
    served = tf.saved_model.load(str(version)).signatures
    for name in ("rank", "rerank"):
        indices, distances = asked(served[name], query, gallery, 5)
        few = {"query": tf.constant(query, tf.float32), "k": tf.constant(5)}
        known = served[f"{name}_known"](**few)
        np.testing.assert_array_equal(known["indices"], indices)
        np.testing.assert_allclose(known["distances"], distances, rtol=1e-6)
    with pytest.raises(InputError, match=r"`gallery` must be of shape \(g, 8\), got \(3, 3\)"):
        serving.export_ranker(tmp_path / "other", 8, gallery=np.eye(3))


# --- Scores


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("drawn") / "people")
    data.synthetic.generate(folder, train_identities=4, test_identities=10, size=(64, 32))
    dataset = data.load("synthetic", folder)
    return dataset.query, dataset.gallery


def test_sample_includes_all_mates_of_queries(people):
    query, gallery = serving.sample(*people, 6, 10)
    assert len(query) == 6
    mates = np.isin(people[1].identity, query.identity).sum()
    assert np.isin(gallery.identity, query.identity).sum() == mates
    assert len(gallery) == min(mates + 10, len(people[1]))
    with pytest.raises(InputError, match="`queries` must be at least 1, got 0"):
        serving.sample(*people, 0, 10)


@pytest.mark.slow
def test_scores_worse_export_fails(model, people, tmp_path):
    version = serving.export(model, tmp_path)
    report = serving.scores(model, version, *people)
    assert report.ok
    assert report.original == pytest.approx(report.exported)
    assert str(report).startswith("scores ok: mAP ")
    broken = keras.models.clone_model(model)
    broken.set_weights([np.zeros_like(w) for w in model.get_weights()])
    worse = serving.scores(model, serving.export(broken, tmp_path), *people)
    assert not worse.ok
    assert "FAILED" in str(worse)


def test_metadata_of_version_0_2_0_reads_old_name(tmp_path):
    metadata = Metadata("onnx", "float32", SIZE, 8, False, None, "f" * 16)
    metadata.write(tmp_path)
    file = tmp_path / "export.json"
    file.write_text(file.read_text().replace("embedding_dim", "embedding_width"))
    assert Metadata.read(tmp_path).embedding_dim == 8
