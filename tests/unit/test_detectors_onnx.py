"""ONNX detectors of each format: recognition, preprocessing and decoding."""

import numpy as np
import oracle_detection as oracle
import pytest

from keras_reid import detection
from keras_reid.errors import InputError

detectors = pytest.importorskip("detectors", reason="onnx, extra onnx, is not installed")
runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime, extra onnx, is not installed")
RTDETR = {"head": "RTDETRDecoder"}
CASES = {  # size, classes, metadata
    "yolo": ((64, 96), 3, {}),
    "yolo_nms": ((64, 96), 3, {}),
    "yolox": ((64, 96), 3, {}),
    "yolox_p6": ((64, 128), 3, {}),
    "rtdetr": ((96, 96), 3, {}),
    "rtdetr_logits": ((96, 64), 3, {}),
    "rtdetr_joined": ((96, 96), 4, {}),
    "rtdetr_best": ((96, 96), 3, RTDETR),
}


def photo(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((height // 5 + 1, width // 5 + 1, 1), np.uint8))[:height, :width]


def rows(found):
    """Return boxes with scores (n, 5), highest score first."""
    boxes, scores = found
    return np.concatenate([boxes, scores[:, None]], axis=1)[np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize("shape", [(90, 61), (50, 200), (301, 300)])
@pytest.mark.parametrize("layout", CASES)
def test_detector_boxes_equal_naive_decoding(tmp_path, layout, shape):
    size, classes, metadata = CASES[layout]
    file, name = tmp_path / "net.onnx", layout.partition("_")[0]
    detectors.write(layout, file, size, sum(shape), classes, **metadata)
    image = photo(*shape)
    session = runtime.InferenceSession(str(file))
    inputs = {"images": oracle.input_of(image, size, name)}
    if layout == "rtdetr":
        inputs["orig_target_sizes"] = np.array([size[::-1]])
    names = [port.name for port in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    decode = oracle.yolo_nms if layout == "yolo_nms" else getattr(oracle, name)
    expected = decode(outputs, size, shape)
    found = rows(detection.detector_of(str(file))(image))
    assert len(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (found[:, 0] + found[:, 2] <= shape[1] + 1e-6).all()


def test_detector_format_overrides_recognition(tmp_path):
    file = tmp_path / "net.onnx"
    detectors.write("rtdetr_best", file, (96, 96))  # without metadata, the shape of yolo_nms
    image = photo(96, 96)
    fractions = rows(detection.detector_of(str(file))(image))
    pixels = rows(detection.detector_of(str(file), "rtdetr")(image))
    assert fractions[:, :4].max(initial=0) <= 1
    assert pixels[:, 2:4].max() > 20


def test_detector_person_is_class_of_that_name(tmp_path):
    files = tmp_path / "first.onnx", tmp_path / "last.onnx"
    detectors.write("yolo", files[0], names={0: "person", 1: "dog", 2: "cat"})
    detectors.write("yolo", files[1], names={0: "dog", 1: "cat", 2: "person"})
    first, last = (rows(detection.detector_of(str(file))(photo(90, 90))) for file in files)
    assert len(first)
    assert len(last)
    assert not {*first[:, 4].tolist()} & {*last[:, 4].tolist()}


def test_detector_further_columns_are_no_classes(tmp_path):
    plain, masks = tmp_path / "plain.onnx", tmp_path / "masks.onnx"
    names = {"names": {0: "person", 1: "dog", 2: "cat"}}
    detectors.write("yolo", plain, classes=35)
    detectors.write("yolo", masks, classes=35, **names)
    image = photo(90, 90)
    assert len(detection.detector_of(str(masks))(image)[0]) > len(
        detection.detector_of(str(plain))(image)[0]
    )


def test_detector_input_of_any_size_gets_640_pixels(tmp_path):
    file = tmp_path / "net.onnx"
    detectors.write("yolo", file, (640, 640), dynamic=True)
    boxes, _ = detection.detector_of(str(file))(photo(1280, 960))
    assert boxes[:, 1].max() > 640


def test_detector_blank_image_has_arrays_of_no_rows(tmp_path):
    file = tmp_path / "net.onnx"
    detectors.write("yolo", file, names={0: "dog", 1: "cat", 2: "sheep", 3: "person"})
    boxes, scores = detection.detector_of(str(file))(photo(90, 90))
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("no.onnx", None, "No such file|must be an ONNX model"),
        ("broken.onnx", None, "must be an ONNX model"),
        ("good.onnx", "magic", "`detector_format` must be one of yolo, yolo_nms, yolox, rtdetr"),
        ("other.onnx", None, "must be a model of the format yolo, .*Pass the format"),
        ("hog", "yolo", "`detector` must be an .onnx file if a format is set, got 'hog'"),
    ],
)
def test_detector_invalid_file_or_format_raises(tmp_path, name, format, message):
    detectors.write("yolo", tmp_path / "good.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    graph = detectors.Graph(0, (64, 64))
    graph.output("embedding", graph.numbers(8))
    graph.save(tmp_path / "other.onnx")
    path = name if name == "hog" else str(tmp_path / name)
    with pytest.raises(InputError, match=message):
        detection.detector_of(path, format)
