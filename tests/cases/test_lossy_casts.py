"""Values of the caller that a cast would change are refused."""

import keras
import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from PIL import Image

from keras_reid import data, evaluation, gallery, inference, serving
from keras_reid.data.mot import Boxes
from keras_reid.data.pipeline import labels_of
from keras_reid.errors import InputError
from keras_reid.serving import saved_model
from keras_reid.tracking.appearance import embed_boxes
from keras_reid.tracking.detect import detect_persons

SIZE = (8, 4)
CROPS = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
UNIT = CROPS.astype(np.float32) / 255
HOLDS = "must be uint8, or hold integers from 0 to 255, got "


@pytest.fixture(scope="module")
def model():
    images = keras.Input((*SIZE, 3), dtype="uint8", name="images")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, {"embedding": pooled})


@pytest.fixture(scope="module")
def embedder(model):
    return inference.load(model)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "1"
    saved_model.write(
        lambda images: {"embedding": tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))},
        SIZE,
        folder,
    )
    inference.Metadata("saved_model", "float32", SIZE, 3, False, None, "0" * 16).write(folder)
    return inference.load(folder)


LOSSY = {
    "from 0 to 1": UNIT,
    "from -1 to 1": 2 * UNIT.astype(np.float64) - 1,
    "half levels": CROPS + 0.5,
    "256": CROPS.astype(np.int64) + 1 + (255 - CROPS.max()),
    "negative": CROPS.astype(np.int16) - 300,
    "NaN": np.where(CROPS > 9, CROPS, np.nan),
    "infinity": np.where(CROPS > 9, CROPS, np.inf),
    "booleans": CROPS > 128,
    "text": CROPS.astype(str),
}
LOSSLESS = [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint16, tf.bfloat16]


@pytest.mark.parametrize("values", LOSSY)
def test_embedder_values_outside_uint8_raise(embedder, exported, values):
    for embed in (lambda x: embedder([x]), lambda x: exported([x])):
        with pytest.raises(InputError, match=HOLDS):
            embed(LOSSY[values])


def test_embedder_error_names_the_conversion(embedder):
    with pytest.raises(
        InputError, match=r"float32 from 0(\.\d+)? to 1\. .*np\.round\(255 \* images\)"
    ):
        embedder([UNIT])


@pytest.mark.parametrize("dtype", LOSSLESS)
def test_embedder_integral_values_are_those_of_uint8(embedder, exported, dtype):
    same = tf.cast(CROPS // 2, dtype)  # bfloat16 holds integers up to 256
    for embed in (lambda x: embedder([x]), lambda x: exported([x])):
        np.testing.assert_array_equal(embed(same), embed(CROPS // 2))
        np.testing.assert_array_equal(embed(same.numpy()), embed(CROPS // 2))


def test_embedder_of_named_inputs_values_outside_uint8_raise(model):
    images = keras.Input((*SIZE, 3), dtype="uint8", name="images")
    embedder = inference.load(keras.Model({"images": images}, model(images)))
    np.testing.assert_array_equal(
        embedder([{"images": CROPS.astype(float)}]), embedder([{"images": CROPS}])
    )
    with pytest.raises(InputError, match=f"`images` {HOLDS}"):
        embedder([{"images": UNIT}])


def test_embedder_of_float_model_accepts_floats():
    images = keras.Input((*SIZE, 3))
    embedder = inference.load(keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)))
    means = UNIT.mean((1, 2))
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder([UNIT]), expected, rtol=1e-5)


def test_parity_of_floats_from_0_to_1_raises(model, tmp_path):
    version = serving.export(model, tmp_path)
    with pytest.raises(InputError, match=HOLDS):
        serving.parity(model, version, UNIT)


def test_detection_frames_from_0_to_1_raise():
    seen = []

    def detector(frame):
        seen.append(frame)
        return np.zeros((0, 4)), np.zeros(0)

    detect_persons(CROPS.astype(np.float64), detector)
    assert [frame.dtype for frame in seen] == [np.uint8] * 3
    with pytest.raises(InputError, match=f"`frame` {HOLDS}"):
        detect_persons(UNIT, detector)


def test_embed_boxes_frames_from_0_to_1_raise():
    boxes = Boxes(np.array([1]), np.array([1]), np.array([[0.0, 0, 4, 8]]), np.ones(1))
    with pytest.raises(InputError, match=f"`frame` {HOLDS}"):
        embed_boxes(iter(UNIT), boxes, lambda crops: crops.mean((1, 2)), SIZE)
    found = embed_boxes(iter(CROPS), boxes, lambda crops: crops.mean((1, 2)), SIZE)
    np.testing.assert_allclose(found[0], CROPS[0].mean((0, 1)))


def test_augment_function_returning_floats_raises(tmp_path):
    for name in "ab":
        Image.fromarray(CROPS[0]).save(tmp_path / f"{name}.png")
    images = data.PersonImages([tmp_path / "a.png", tmp_path / "b.png"], [1, 2], None)
    with pytest.raises(InputError, match="`augment` must return uint8 images, got float32"):
        data.pk_batches(images, 2, 1, SIZE, lambda images, seed: tf.cast(images, tf.float32) / 255)


def test_labels_cameras_beyond_int32_are_distinguished():
    cameras = [2**32 + 1, 1, 2**40 + 1]
    images = data.PersonImages(["a", "b", "c"], [1, 2, 3], cameras)
    labels = labels_of(images)["camera"]
    assert labels.dtype == np.int32
    assert labels.tolist() == [1, 0, 2]
    assert labels_of(data.PersonImages(["a"], [1], [7]))["camera"].tolist() == [7]


def test_labels_beyond_int64_raise():
    large = np.array([2**64 - 1], np.uint64)  # −1 of int64, which is junk
    with pytest.raises(InputError, match=r"`identity` must be below 2\*\*63, got 18446744073709"):
        data.PersonImages(["a"], large, None)
    with pytest.raises(InputError, match=r"`query identities` must be below 2\*\*63"):
        evaluation.rank(
            np.zeros((1, 1)),
            evaluation.Labels(large, None),
            evaluation.Labels(large, None),
            protocol="no-camera",
        )
    small = data.PersonImages(["a"], np.array([2**63 - 1], np.uint64), None)
    assert small.identity.tolist() == [2**63 - 1]


def test_mars_fractions_of_identities_raise(tmp_path):
    for part in ("bbox_train/0001", "bbox_test/0001", "info"):
        (tmp_path / part).mkdir(parents=True)
    name = "0001C1T0001F001.jpg"
    for part in ("train", "test"):
        Image.fromarray(CROPS[0]).save(tmp_path / f"bbox_{part}/0001/{name}")
        (tmp_path / f"info/{part}_name.txt").write_text(f"{name}\n")
        rows = np.array([[1, 1, 1.5, 1]])
        scipy.io.savemat(tmp_path / f"info/tracks_{part}_info.mat", {f"track_{part}_info": rows})
    with pytest.raises(InputError, match="rows of integers"):
        data.load("mars", tmp_path)


@pytest.mark.parametrize(
    "labels", [np.array([1.0, 2.0]), ["anna", float("nan")], [np.float32(1), 2]]
)
def test_enrol_floats_as_labels_raise(labels):
    with gallery.open("memory:") as people:
        for columns in ((labels, None), (["anna", "bert"], labels)):
            with pytest.raises(
                InputError, match=r"must be a string or an integer, got (np\.\w+\()?(1|nan)"
            ):
                people.enrol(np.eye(2), *columns, model_fingerprint="x")
        assert people.count() == 0
        people.enrol(np.eye(2), np.array([1, 2]), ["north", None], model_fingerprint="x")
        assert people.identities() == {"1": 1, "2": 1}
