"""Images that an embedder takes: paths, PIL images, arrays and lists of these."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_reid import data, inference, models, serving
from keras_reid.data.inputs import decoding_batches
from keras_reid.errors import InputError

SIZE = (32, 16)
FILES = {"a.png": (32, 16), "b.jpg": (70, 30), "c.gif": (20, 20), "d.webp": (16, 40)}


@pytest.fixture(scope="module")
def embedder() -> inference.Embedder:
    keras.utils.set_random_seed(0)
    return inference.load(models.build("tiny", 3, SIZE, weights="none"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of several formats and sizes; `e.jpg` is turned by Exif."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, size in FILES.items():
        image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
        image.save(root / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "e.jpg", exif=exif)
    image.convert("RGBA").save(root / "f.png")
    return [str(root / name) for name in (*FILES, "e.jpg", "f.png")]


@pytest.fixture(scope="module")
def expected(embedder: inference.Embedder, paths: list[str]) -> np.ndarray:
    """Embeddings of the files by the pipeline of `PersonImages`."""
    embeddings = embedder.embed(data.PersonImages(np.array(paths), np.arange(len(paths)), None))
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    # An image that takes another row is noticed.
    assert np.sort(distances, axis=1)[:, 1].min() > 10 * TOLERANCE
    return embeddings


# Pillow and TensorFlow resize to the same pixels but for one gray level.
TOLERANCE = 5e-3


def upright_pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.fixture
def pil_images(paths: list[str]) -> Iterator[list[Image.Image]]:
    """The files as PIL images that are not loaded yet."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Image.open(path)) for path in paths]


def test_embed_one_path_returns_one_row(
    embedder: inference.Embedder, paths: list[str], expected: np.ndarray
) -> None:
    for form in (paths[1], Path(paths[1]), np.array(paths[1])):
        np.testing.assert_allclose(embedder.embed(form), expected[1:2], atol=TOLERANCE)


def test_embed_lists_of_paths_agree_with_person_images(
    embedder: inference.Embedder, paths: list[str], expected: np.ndarray
) -> None:
    forms = (paths, tuple(map(Path, paths)), np.array(paths), np.array(paths, object), iter(paths))
    for form in forms:
        np.testing.assert_allclose(embedder.embed(form), expected, atol=TOLERANCE)


def test_embed_pil_images_agree_with_their_files(
    embedder: inference.Embedder,
    paths: list[str],
    pil_images: list[Image.Image],
    expected: np.ndarray,
) -> None:
    of_files = embedder.embed(paths)
    np.testing.assert_array_equal(embedder.embed(pil_images), of_files)
    np.testing.assert_allclose(embedder.embed(pil_images[4]), of_files[4:5], atol=1e-5)
    np.testing.assert_allclose(of_files, expected, atol=TOLERANCE)


def test_embed_arrays_of_any_size_agree_with_files(
    embedder: inference.Embedder, paths: list[str]
) -> None:
    arrays = [upright_pixels(path) for path in paths]
    of_files = embedder.embed(paths)
    np.testing.assert_array_equal(embedder.embed(arrays), of_files)
    for array, row in zip(arrays, of_files, strict=True):
        np.testing.assert_allclose(embedder.embed(array), row[None], atol=1e-5)


def test_embed_batches_of_any_size_agree_with_single_images(
    embedder: inference.Embedder, paths: list[str]
) -> None:
    large = np.random.default_rng(1).integers(0, 256, (5, 80, 40, 3), np.uint8)
    single = np.concatenate([embedder.embed(image) for image in large])
    for batch in (large, large.astype(np.float32), tf.constant(large), [large[:2], large[2:]]):
        np.testing.assert_allclose(embedder.embed(batch, batch_size=2), single, atol=1e-5)
    fit = large[:, : SIZE[0], : SIZE[1]]
    np.testing.assert_allclose(embedder.embed(fit), embedder([fit]), atol=1e-6)


def test_embed_mixed_list_keeps_order(
    embedder: inference.Embedder, paths: list[str], pil_images: list[Image.Image]
) -> None:
    of_files = embedder.embed(paths)
    image = pil_images[3]
    mixed = [paths[2], image, upright_pixels(paths[1])[None], Path(paths[0]), image]
    got = embedder.embed(mixed, batch_size=2)
    np.testing.assert_allclose(got, of_files[[2, 3, 1, 0, 3]], atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_embed_pil_mode_agrees_with_its_file(
    embedder: inference.Embedder, mode: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 20), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) << 8)
    else:
        image = Image.fromarray(pixels).convert(mode)
    file = tmp_path / "image.tif"
    image.save(file)
    np.testing.assert_array_equal(embedder.embed(image), embedder.embed(file))
    assert image.mode == mode


def test_embed_pil_image_is_left_unchanged(embedder: inference.Embedder, tmp_path: Path) -> None:
    Image.new("RGB", (16, 32), (1, 2, 3)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    with Image.open(tmp_path / "a.png") as image:
        embedder.embed(image)
        assert image.info["transparency"] == (1, 2, 3)


def test_embed_home_path_is_expanded(
    embedder: inference.Embedder, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(paths[0]).parent))
    np.testing.assert_array_equal(embedder.embed("~/a.png"), embedder.embed(paths[0]))


def test_embed_reports_progress_of_images(embedder: inference.Embedder, paths: list[str]) -> None:
    told: list[tuple[int, int]] = []
    embedder.embed(
        [*paths, np.zeros((2, 9, 9, 3), np.uint8)],
        batch_size=5,
        progress=lambda *at: told.append(at),
    )
    assert told == [(5, 8), (8, 8)]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("missing.png", r"got .*missing\.png \(.*No such file"),
        (["missing.png"], r"got .*missing\.png"),
        (".", r"got \. \(Is a directory\)"),
        (3, "must be paths, PIL images, or uint8 RGB arrays .*, got int"),
        ([[1, 2], [3, 4]], "got int"),
        (b"content", "got bytes"),
        ([b"content"], "got bytes"),
        (None, "got NoneType"),
        ({"images": "a.png"}, "got dict"),
        (np.zeros((4, 4), np.uint8), r"got the shape \(4, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got the shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got the shape \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got the shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), 0.5), "integers from 0 to 255"),
        ([], "`images` must be at least 1"),
        (np.zeros((0, 8, 8, 3), np.uint8), "`images` must be at least 1"),
    ],
)
def test_embed_other_input_raises(embedder: inference.Embedder, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        embedder.embed(images)


def test_embed_damaged_file_is_named(
    embedder: inference.Embedder, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "half.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    with Image.open(tmp_path / "half.png") as image:
        for images in ([paths[1], tmp_path / "half.png"], image):
            with pytest.raises(InputError, match=r"got .*half\.png \("):
                embedder.embed(images)


def test_embed_paths_by_model_of_tracklets_raises(paths: list[str]) -> None:
    model = models.build_tracklet("tiny", 3, image_size=SIZE, weights="none")
    with pytest.raises(InputError, match=r"with the columns tracklet for .*, got list"):
        inference.load(model).embed(paths)


@pytest.mark.slow
def test_export_embed_every_input_form_agrees_with_files(
    paths: list[str], pil_images: list[Image.Image], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 3, SIZE, weights="none")
    served = inference.load(serving.export(model, tmp_path / "export", flip=False))
    of_files = served.embed(data.PersonImages(paths, paths, None))
    forms = (paths, pil_images, [upright_pixels(path) for path in paths])
    for form in (*forms, [*paths[:3], pil_images[3], *paths[4:]]):
        np.testing.assert_allclose(served.embed(form), of_files, atol=TOLERANCE)
    np.testing.assert_allclose(served.embed(paths[1]), of_files[1:2], atol=TOLERANCE)
    with pytest.raises(InputError, match="got int"):
        served.embed(3)


def test_decoding_batches_skips_damaged_files(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 8), (10 * number,) * 3).save(path)
    (tmp_path / "1.png").write_bytes(b"damaged")
    batches = list(decoding_batches([*paths, "missing.png"], (8, 4), 2))
    rows = np.concatenate([rows for rows, _ in batches])
    np.testing.assert_array_equal(rows, [0, 2, 3, 4])
    pixels = np.concatenate([pixels for _, pixels in batches])
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], 10 * rows)
