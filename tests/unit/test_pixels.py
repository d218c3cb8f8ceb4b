"""Pillow and TensorFlow return the same pixels to one gray level."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_reid import data, inference
from keras_reid.pixels import (
    decode,
    graph_decode_upright,
    graph_resize,
    resize,
)
from keras_reid.serving.portable_decoding import graph_decode_portable

SIZES = ((64, 32), (200, 90), (96, 20), (33, 120))  # smaller, larger, and both
SCENE = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 6, 3), np.uint8)).resize(
        (61, 127), Image.Resampling.BICUBIC
    )
)
NOISE = np.random.default_rng(1).integers(0, 256, (127, 61, 3), np.uint8)
FILES = {
    "4:4:4": ("JPEG", "RGB", {"subsampling": 0, "quality": 95}),
    "4:2:2": ("JPEG", "RGB", {"subsampling": 1, "quality": 75}),
    "4:2:0": ("JPEG", "RGB", {"subsampling": 2, "quality": 30}),
    "progressive": ("JPEG", "RGB", {"progressive": True}),
    "restart markers": ("JPEG", "RGB", {"restart_marker_blocks": 2}),
    "gray JPEG": ("JPEG", "L", {}),
    "CMYK JPEG": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {}),
    "alpha": ("PNG", "RGBA", {}),
    "gray PNG": ("PNG", "L", {}),
    "gray and alpha": ("PNG", "LA", {}),
    "16 bit": ("PNG", "I;16", {}),
    "palette": ("PNG", "P", {}),
    "1 bit": ("PNG", "1", {}),
    "BMP": ("BMP", "RGB", {}),
    "BMP palette": ("BMP", "P", {}),
    "GIF": ("GIF", "P", {}),
    "WebP": ("WEBP", "RGB", {"lossless": True}),
}


def content_of(kind: str, pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    name, mode, own = FILES[kind]
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(NOISE[..., 0]))
    else:
        image = image.convert(mode)
    image.save(file, name, **own, **options)
    return file.getvalue()


@tf.function(reduce_retracing=True)
def decode_in_graph(content):
    return graph_decode_portable(content)


def difference(a, b) -> int:
    a, b = (np.asarray(x).astype(int) for x in (a, b))
    assert a.shape == b.shape
    return np.abs(a - b).max()


@pytest.mark.parametrize("pixels", [SCENE, NOISE], ids=["scene", "noise"])
@pytest.mark.parametrize("kind", FILES)
def test_decode_and_resize_in_graph_within_one_gray_level_of_pillow(kind, pixels):
    content = content_of(kind, pixels)
    by_pillow, in_graph = decode(content), decode_in_graph(tf.constant(content))
    assert by_pillow.dtype == np.uint8
    assert difference(by_pillow, in_graph) <= 1
    for size in SIZES:
        resized, in_graph_resized = resize(by_pillow, size), graph_resize(in_graph, size)
        assert difference(resized, in_graph_resized) <= 1
        if difference(by_pillow, in_graph) == 0:
            assert (resized != in_graph_resized.numpy()).mean() < 0.05


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:0", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_graph_resized_within_one_gray_level_of_pillow(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = content_of(kind, SCENE, exif=exif.tobytes())
    pixels = decode(content)
    assert pixels.shape[0] == (127 if orientation < 5 else 61)
    # The orientation of PNG files is read by Pillow.
    in_graph = [graph_decode_upright(content, orientation)]
    in_graph += [decode_in_graph(tf.constant(content))] if kind != "PNG" else []
    for found in in_graph:
        assert difference(resize(pixels, (64, 32)), graph_resize(found, (64, 32))) <= 1


@given(st.tuples(*[st.integers(1, 70)] * 4), st.integers(0, 99))
def test_resize_any_size_within_one_gray_level_of_graph(sizes, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*sizes[:2], 3), np.uint8)
    assert difference(resize(pixels, sizes[2:]), graph_resize(pixels, sizes[2:])) <= 1


def test_resize_values_between_gray_levels_are_rounded():
    pixels = np.array([10, 11, 11, 11], np.uint8)[:, None, None].repeat(3, axis=2)  # mean 10.9
    assert (resize(pixels, (1, 1)) == 11).all()
    assert (np.asarray(graph_resize(pixels, (1, 1))) == 11).all()


def test_resize_same_size_returns_same_pixels():
    assert resize(SCENE, SCENE.shape[:2]) is SCENE
    assert difference(graph_resize(SCENE, SCENE.shape[:2]), SCENE) == 0


def test_decode_content_file_and_image_return_same_pixels(tmp_path):
    content = content_of("4:2:0", SCENE)
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(tmp_path / "a.jpg") as image:
        for source in (content, io.BytesIO(content), str(tmp_path / "a.jpg"), image):
            np.testing.assert_array_equal(decode(source), decode(tmp_path / "a.jpg"))


ALONE = """
import io, sys
import numpy as np
from PIL import Image
from keras_reid import pixels
file = io.BytesIO()
Image.new("RGB", (8, 16)).save(file, "JPEG")
assert pixels.resize(pixels.decode(file.getvalue()), (4, 4)).shape == (4, 4, 3)
print(sorted({"keras", "tensorflow"} & set(sys.modules)))
"""


def test_decode_and_resize_import_neither_keras_nor_tensorflow():
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], check=True, capture_output=True, text=True
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


@pytest.mark.slow
@pytest.mark.real
def test_embedding_of_real_images_by_pillow_and_in_graph_agree(real_data):
    folder = real_data / "data/market1501-mini/query"
    paths = sorted(map(str, folder.glob("*.jpg")))[::20][:64]
    images = data.readable(data.PersonImages(paths, np.arange(len(paths)), None))
    assert (images.columns["exif_orientation"] > 0).all()
    for path in paths:
        content = tf.io.read_file(path)
        in_graph = graph_decode_upright(content, 1)
        assert difference(decode(path), in_graph) <= 1
        for size in ((256, 128), (64, 32)):
            assert difference(resize(decode(path), size), graph_resize(in_graph, size)) <= 1
    embedder = inference.load()
    by_pillow = embedder.embed(images)
    by_graph = embedder(data.image_batches(images, 16, embedder.image_size))
    np.testing.assert_allclose(np.linalg.norm(by_pillow, axis=1), 1, atol=1e-5)
    assert np.abs(by_pillow - by_graph).max() <= 0.01
