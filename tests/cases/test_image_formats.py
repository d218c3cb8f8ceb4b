"""Image files as other programs write them: formats, orientation, bits per pixel."""

import io
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from keras_reid import data, inference, pixels, scale
from keras_reid.data import cache
from keras_reid.data.inputs import decoding_batches
from keras_reid.data.pipeline import check_service, image_batches
from keras_reid.data.validation import decodable, orientations
from keras_reid.errors import InputError
from keras_reid.pixels import BY_PILLOW, decode, graph_decode, upright_size
from keras_reid.serving import saved_model
from keras_reid.serving.portable_decoding import graph_decode_portable

SIZE = (64, 32)
BLOCKS = np.random.default_rng(0).integers(0, 256, (8, 4, 3)).astype(np.uint8)
PIXELS = np.kron(BLOCKS, np.ones((8, 8, 1), np.uint8))
PICTURE = Image.fromarray(PIXELS)

CONTENT = tf.TensorSpec((), tf.string)
decode_in_graph = tf.function(graph_decode, input_signature=[CONTENT, tf.TensorSpec((), tf.int32)])
served = tf.function(graph_decode_portable, input_signature=[CONTENT])


def content_of(picture: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[f".{suffix}"], **options)
    return file.getvalue()


def as_in_viper(content: bytes) -> bytes:
    """The same BMP file with a header that counts two bytes too many."""
    longer = bytearray(content + b"\0\0")
    longer[2:6] = struct.pack("<I", len(longer))
    longer[34:38] = struct.pack("<I", len(longer) - 54)
    return bytes(longer)


def bmp_of_masks(order: str, header: int = 40) -> bytes:
    """A BMP file of 32 bits per pixel, with these channels from the lowest byte to the highest."""
    channels = {**dict(zip("RGB", np.moveaxis(PIXELS, -1, 0), strict=True)), "A": 255, "X": 0}
    pixels = np.zeros((*SIZE, 4), np.uint8)
    for place, name in enumerate(order):
        pixels[..., place] = channels[name]
    fields = struct.pack("<3I2H6I", header, *SIZE[::-1], 1, 32, 3, pixels.nbytes, 0, 0, 0, 0)
    masks = [0xFF << 8 * order.index(name) if name in order else 0 for name in "RGBA"]
    block = (fields + struct.pack("<4I", *masks)[: 12 if header == 40 else 16]).ljust(header, b"\0")
    start = 14 + len(block)
    return (
        b"BM" + struct.pack("<3I", start + pixels.nbytes, 0, start) + block + pixels[::-1].tobytes()
    )


def without_adobe(content: bytes) -> bytes:
    """The same CMYK file without the segment of Adobe."""
    at = content.index(b"\xff\xee\0\x0eAdobe")
    return content[:at] + content[at + 16 :]


def tiff(order: str, *directories: list[tuple[int, int, int]]) -> bytes:
    """A TIFF structure of directories of entries (tag, type, value)."""
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    for number, entries in enumerate(directories, start=1):
        block += struct.pack(order + "H", len(entries))
        for tag, kind, value in entries:
            packed = {1: "B3x", 3: "H2x", 4: "I"}[kind]
            block += struct.pack(order + "HHI" + packed, tag, kind, 1, value)
        following = len(block) + 4 if number < len(directories) else 0
        block += struct.pack(order + "I", following)
    return block


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


ICC = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000))
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
COMMENT = segment(0xFE, b"Exif\0 in a comment")
APP13 = segment(0xED, b"Photoshop 3.0\x008BIM" + bytes(60_000))
TURNED = tiff("<", [(0x0112, 3, 6)])
IN_FRONT = {
    "nothing": b"",
    "ICC": ICC,
    "XMP": XMP,
    "comment": COMMENT,
    "APP13": APP13,
    "all": ICC + XMP + COMMENT + APP13,
    "padding": b"\xff\xff\xff" + ICC,
}
BLOCK = {
    "SHORT": TURNED,
    "big-endian": tiff(">", [(0x010F, 3, 1), (0x0112, 3, 6)]),
    "LONG": tiff("<", [(0x0112, 4, 6)]),
    "big-endian LONG": tiff(">", [(0x0112, 4, 6)]),
}
UPRIGHT_BLOCK = {
    "thumbnail": tiff("<", [(0x010F, 3, 1)], [(0x0112, 3, 6)]),
    "beyond 8": tiff("<", [(0x0112, 3, 9)]),
    "zero": tiff(">", [(0x0112, 3, 0)]),
    "empty": tiff("<", []),
    "truncated": TURNED[:16],
    "offset beyond the end": TURNED[:4] + b"\xff\xff\xff\x7f",
    "no structure": b"",
}


def jpeg(block: bytes, front: bytes = b"", jfif: bool = True) -> bytes:
    plain = content_of(PICTURE, "jpg", quality=95)
    start = 20 if jfif else 2
    rest = plain[20:]
    return plain[:start] + front + segment(0xE1, b"Exif\0\0" + block) + rest


def check_agree(path: Path, shape: tuple[int, int], tolerance: int = 0) -> np.ndarray:
    """All ways to the pixels agree; the pixels of Pillow are returned."""
    pixels, content = decode(path).astype(int), path.read_bytes()
    assert pixels.shape == (*shape, 3)
    assert upright_size(path) == shape[::-1]
    np.testing.assert_array_equal(decode(content), pixels)
    (turn,) = orientations(np.array([str(path)]))
    np.testing.assert_allclose(decode_in_graph(content, turn), pixels, atol=tolerance)
    np.testing.assert_array_equal(decode_in_graph(content, BY_PILLOW), pixels)
    np.testing.assert_array_equal(next(iter(data.Video(path.parent))), pixels)
    return pixels


# --- Orientation


@pytest.mark.parametrize("jfif", [True, False])
@pytest.mark.parametrize("front", IN_FRONT)
def test_decode_exif_after_other_segments_applies_orientation(tmp_path, front, jfif):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(TURNED, IN_FRONT[front], jfif))
    pixels = check_agree(path, SIZE[::-1], tolerance=1)
    assert np.abs(pixels - np.rot90(PIXELS, -1)).mean() < 8
    np.testing.assert_allclose(served(path.read_bytes()), pixels, atol=1)


@pytest.mark.parametrize("block", BLOCK)
def test_decode_every_type_of_orientation_is_applied(tmp_path, block):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(BLOCK[block]))
    pixels = check_agree(path, SIZE[::-1], tolerance=1)
    np.testing.assert_allclose(served(path.read_bytes()), pixels, atol=1)


@pytest.mark.parametrize("block", UPRIGHT_BLOCK)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated File Read")
def test_decode_no_orientation_in_ifd0_is_unchanged(tmp_path, block):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(UPRIGHT_BLOCK[block]))
    pixels = check_agree(path, SIZE, tolerance=1)
    np.testing.assert_allclose(served(path.read_bytes()), pixels, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_decode_other_formats_apply_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    path.write_bytes(content_of(PICTURE, suffix, exif=exif.tobytes(), **options))
    shape = SIZE if orientation < 5 else SIZE[::-1]
    pixels = check_agree(path, shape)
    turns = [0, 0, 0, 2, 2, 3, 3, 1, 1]  # by 90° to the left; even ones mirrored
    expected = np.rot90(PIXELS, turns[orientation])
    expected = expected[:, ::-1] if orientation in (2, 4, 5, 7) else expected
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "P", "RGBX"])
def test_decode_uncompressed_tiff_applies_orientation(tmp_path, mode, orientation):
    path, picture = tmp_path / "a.tif", Image.fromarray(DEEP)
    if mode != "I;16":
        picture = PICTURE.quantize(16) if mode == "P" else PICTURE.convert(mode)
    picture.save(path, tiffinfo={0x0112: orientation})
    pixels = check_agree(path, SIZE[::-1])
    plain = DEEP[..., None] >> 8 if mode == "I;16" else np.asarray(picture.convert("RGB"))
    expected = np.rot90(plain, {5: 3, 6: 3, 7: 1, 8: 1}[orientation])
    expected = expected[:, ::-1] if orientation in (5, 7) else expected
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    with Image.open(path) as image:
        np.testing.assert_array_equal(decode(image), pixels)
        assert image.filename == str(path)


def test_decode_png_exif_after_pixels_applies_orientation(tmp_path):
    content = content_of(PICTURE, "png")
    chunk = b"eXIf" + TURNED
    chunk = struct.pack(">I", len(TURNED)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    check_agree(tmp_path / "a.png", SIZE[::-1])


def test_decode_orientation_of_xmp_is_applied(tmp_path):
    path = tmp_path / "a.jpg"
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    plain = content_of(PICTURE, "jpg")
    path.write_bytes(plain[:20] + xmp + plain[20:])
    with Image.open(path) as image:
        read = "xmp" in image.info  # not by Pillow 10
    check_agree(path, SIZE[::-1] if read else SIZE, tolerance=1)


@pytest.mark.slow
def test_readable_orientation_is_a_column_and_no_label(tmp_path, monkeypatch):
    paths = [tmp_path / f"{orientation}.jpg" for orientation in (1, 6, 3, 8)]
    for path in paths:
        path.write_bytes(jpeg(tiff("<", [(0x0112, 3, int(path.stem))])))
    images = data.readable(data.PersonImages(paths, [1, 1, 2, 2], None))
    assert images.columns["exif_orientation"].tolist() == [1, 6, 3, 8]
    assert images[1:3].checked
    (expected,) = image_batches(data.PersonImages(paths, [1, 1, 2, 2], None), 4, SIZE)

    def refuse(*_):
        raise AssertionError("the orientation is known, so that no Python runs in the graph")

    monkeypatch.setattr(cache, "graph_decode", refuse)
    np.testing.assert_array_equal(*image_batches(images, 4, SIZE), expected)
    (_, labels), *_ = data.pk_batches(images, 2, 2, SIZE).take(1)
    assert set(labels) == {"identity"}


# --- JPEG


def test_decode_jpeg_noise_is_within_one_gray_level_of_pillow(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (61, 45, 3)).astype(np.uint8)
    for quality, subsampling in ((30, 0), (75, 1), (75, 2), (98, 2)):
        path = tmp_path / "a.jpg"
        Image.fromarray(noise).save(path, quality=quality, subsampling=subsampling)
        pixels = check_agree(path, noise.shape[:2], tolerance=1)
        np.testing.assert_allclose(served(path.read_bytes()), pixels, atol=1)


# --- Formats and bits per pixel

DEEP = np.linspace(0, 65_535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
MODES = {
    "viper.bmp": lambda: as_in_viper(content_of(PICTURE, "bmp")),
    "viper-palette.bmp": lambda: as_in_viper(content_of(PICTURE.quantize(16), "bmp")),
    "trailing.bmp": lambda: content_of(PICTURE, "bmp") + b"\0",
    "gray.bmp": lambda: content_of(PICTURE.convert("L"), "bmp"),
    "alpha.bmp": lambda: content_of(PICTURE.convert("RGBA"), "bmp"),
    "bits.bmp": lambda: content_of(PICTURE.convert("1"), "bmp"),
    "bgr-masks.bmp": lambda: bmp_of_masks("BGRX"),
    "bgra-masks.bmp": lambda: bmp_of_masks("BGRA", 108),
    "rgba-masks.bmp": lambda: bmp_of_masks("RGBA", 108),
    "xbgr-masks.bmp": lambda: bmp_of_masks("XBGR"),
    "deep.png": lambda: content_of(Image.fromarray(DEEP), "png"),
    "bits.png": lambda: content_of(PICTURE.convert("1"), "png"),
    "palette.png": lambda: content_of(PICTURE.quantize(16), "png", transparency=b"\0\x80"),
    "key.png": lambda: content_of(PICTURE, "png", transparency=tuple(map(int, PIXELS[0, 0]))),
    "cut.png": lambda: content_of(PICTURE, "png")[:-1],
    "unfinished.png": lambda: content_of(PICTURE, "png")[:-12],
    "animated.gif": lambda: content_of(
        PICTURE, "gif", save_all=True, append_images=[PICTURE.rotate(180)]
    ),
    "alpha.webp": lambda: content_of(PICTURE.convert("RGBA"), "webp"),
    "animated.webp": lambda: content_of(
        PICTURE, "webp", save_all=True, append_images=[PICTURE.rotate(180)]
    ),
    "bits.tif": lambda: content_of(PICTURE.convert("1"), "tif"),
    "deep.tif": lambda: content_of(Image.fromarray(DEEP), "tif"),
    "packed.tiff": lambda: content_of(PICTURE, "tiff", compression="tiff_lzw"),
    "inks.tif": lambda: content_of(PICTURE.convert("CMYK"), "tif"),
    "inks.jpg": lambda: content_of(PICTURE.convert("CMYK"), "jpg"),
}
REFUSED = {  # by the signature, each with the name of its format
    "bits.bmp": "BMP of 1 bits per pixel",
    **dict.fromkeys(("rgba-masks.bmp", "xbgr-masks.bmp"), "compression 3 and other channel masks"),
    **dict.fromkeys(("bits.tif", "deep.tif", "packed.tiff", "inks.tif"), "got TIFF"),
    **dict.fromkeys(("cut.png", "unfinished.png"), "PNG"),
    "animated.webp": "WebP",
}


@pytest.fixture(params=MODES)
def file(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(MODES[request.param]())
    return path


def test_decode_every_format_is_decoded_as_by_pillow(file):
    pixels = check_agree(file, SIZE, tolerance=int(file.suffix == ".jpg"))
    if file.stem == "deep":
        np.testing.assert_array_equal(pixels[..., 0], DEEP >> 8)


def test_decode_cmyk_without_adobe_marker_is_decoded_as_by_pillow(tmp_path):
    content = without_adobe(content_of(PICTURE.convert("CMYK"), "jpg", quality=95))
    (tmp_path / "a.jpg").write_bytes(content)
    pixels = check_agree(tmp_path / "a.jpg", SIZE)
    assert np.abs(pixels - PIXELS).mean() < 8


def test_serving_bytes_decodes_as_pillow(file):
    if file.name in REFUSED:
        with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED[file.name]):
            served(file.read_bytes())
    else:
        pixels = decode(file).astype(int)
        tolerance = {".jpg": 1, ".webp": 2}.get(file.suffix, 0)
        np.testing.assert_allclose(served(file.read_bytes()), pixels, atol=tolerance)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10, 19, 21, 30, 53, 60, 120])
@pytest.mark.parametrize("name", ["a.jpg", "viper-palette.bmp", "key.png", "packed.tiff"])
def test_serving_bytes_truncated_raises(name, size):
    content = jpeg(TURNED) if name == "a.jpg" else MODES[name]()
    with pytest.raises(tf.errors.InvalidArgumentError):
        served(content[:size])


WRITTEN = ("jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "jp2", "ppm", "tga", "ico")


def test_suffixes_every_format_is_read_from_folder(tmp_path):
    for suffix in WRITTEN:
        (tmp_path / f"a.{suffix}").write_bytes(content_of(PICTURE, suffix))
    images = data.readable(data.unlabeled(tmp_path))
    assert len(images) == len(WRITTEN)
    batch = np.concatenate(list(image_batches(images, 3, (32, 16)))).astype(int)
    assert np.abs(batch - batch[0]).mean() < 16  # lossy, and 256 colors in GIF


def test_decode_more_than_16_bits_raises(tmp_path):
    Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"must be an intact .*a\.tif \(32 bits per channel\)"):
        decode(tmp_path / "a.tif")
    assert not decodable(np.array([str(tmp_path / "a.tif")])).any()


def test_suffixes_are_those_of_all_formats_that_pillow_reads():
    Image.init()
    readable = {*Image.OPEN, "MPO"} - pixels.UNREADABLE_FORMATS
    suffixes = Image.registered_extensions().items()
    heif = {suffix for suffix, _ in suffixes if suffix in pixels.HEIF}
    assert {suffix for suffix, name in suffixes if name in readable} - heif <= {*data.SUFFIXES}


def test_heic_is_turned_upright(tmp_path):
    pytest.importorskip("pillow_heif", reason="pillow-heif, extra heif, is not installed")
    decode(content_of(PICTURE, "png"))  # registers the format
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("a.heic", {}), ("b.heic", {"exif": exif.tobytes()})):
        PICTURE.save(tmp_path / name, quality=100, chroma=444, **options)
        expected = PIXELS if name == "a.heic" else np.rot90(PIXELS, -1)
        found = decode(tmp_path / name).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 4
        assert upright_size(tmp_path / name) == expected.shape[1::-1]
    assert len(data.readable(data.unlabeled(tmp_path))) == 2


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF decoder")
def test_avif_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", exif=exif.tobytes())
    found = decode(tmp_path / "a.avif").astype(int)
    assert np.abs(found - np.rot90(PIXELS, -1)).mean() < 4
    assert len(data.readable(data.unlabeled(tmp_path))) == 1


def test_heic_without_decoder_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "_formats", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert data.unfit(tmp_path / "a.heic") == "a file that needs pip install '.[heif]' (HEIF)"


def test_decode_formats_of_other_programs_raise(tmp_path):
    PICTURE.save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match="must be an intact image file of 8 or 16 bits"):
        decode(tmp_path / "a.png")
    assert data.unfit(tmp_path / "a.png") == "another type of file"
    assert not decodable(np.array([str(tmp_path / "a.png")])).any()


# --- Where files are decoded


@pytest.fixture(scope="module")
def viper(tmp_path_factory):
    """Pictures as in the archive of VIPeR, of six persons in two cameras."""
    root = tmp_path_factory.mktemp("viper")
    for camera, angle in (("cam_a", 45), ("cam_b", 90)):
        (root / camera).mkdir()
        for person in range(6):
            picture = Image.fromarray(np.roll(PIXELS, 8 * person + angle % 4, axis=0))
            content = as_in_viper(content_of(picture, "bmp"))
            (root / camera / f"{person:03d}_{angle}.bmp").write_bytes(content)
    return root


def test_viper_reader_reads_all_and_trains(viper):
    dataset = data.load("viper", viper)
    sizes = [len(data.readable(part, 0.0)) for part in dataset.parts().values()]
    assert sizes == [6, 3, 3]
    assert data.check(dataset).unreadable == []
    batches = data.pk_batches(dataset.train, 3, 2, SIZE, "none")
    (pixels, labels), *_ = batches.take(1)
    expected = {decode(path).tobytes() for path in dataset.train.path}
    assert {image.tobytes() for image in pixels.numpy()} == expected
    assert set(labels) == {"identity", "camera"}


def test_iterator_over_bmp_saves_and_restores(viper, tmp_path):
    batches = data.pk_batches(data.load("viper", viper).train, 3, 2, SIZE, "none", seed=3)
    iterator = iter(batches)
    next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    following = next(iterator)[0].numpy()
    again = iter(batches)
    tf.train.Checkpoint(iterator=again).read(path)
    np.testing.assert_array_equal(next(again)[0], following)


def test_embedding_of_viper_files_has_no_null(viper, tmp_path):
    images = keras.Input((*SIZE, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    shards = scale.embed(str(viper), keras.Model(images, pooled), tmp_path / "out")
    (shard,) = shards
    assert shard.decodes.all()
    assert len(shard.path) == 12
    ((_, pixels),) = decoding_batches(list(shard.path), SIZE, 12)
    np.testing.assert_array_equal(pixels[0], decode(shard.path[0]))


@pytest.mark.slow
def test_export_embed_files_rejected_by_signature_are_embedded(tmp_path):
    paths = [tmp_path / name for name in ("bits.bmp", "bits.tif", "deep.tif")]
    for path in paths:
        path.write_bytes(MODES[path.name]())
    saved_model.write(
        lambda images: {"embedding": tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))},
        SIZE,
        tmp_path / "1",
    )
    expected = [decode(path).mean(axis=(0, 1)) for path in paths]
    metadata = inference.Metadata("saved_model", "float32", SIZE, 3, False, None, "0" * 16)
    metadata.write(tmp_path / "1")
    found = inference.load(tmp_path / "1").embed(paths, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_data_service_of_bmp_raises(viper):
    images = data.load("viper", viper).train
    with pytest.raises(InputError, match=r"must be intact JPEG or PNG files, got 6 others"):
        check_service(images, None)
    check_service(images, "memory")
