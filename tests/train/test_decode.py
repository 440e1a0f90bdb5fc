"""Files to pixels: equal to Pillow on good files, a reason for each bad one."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.train.images import encoded, pixels
from train.data.decode import BrokenImage, Decoding, decode

IMAGE = pixels(0)


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"quality": 30}])
def test_jpegs_are_what_pillow_reads(options: dict[str, object]) -> None:
    data = encoded(IMAGE, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data, 3), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_other_formats_are_what_pillow_reads(kind: str) -> None:
    data = encoded(IMAGE, kind)
    np.testing.assert_array_equal(decode(data, 3), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_one_channel_is_grey(kind: str) -> None:
    data = encoded(IMAGE[..., 0], kind)
    assert decode(data, 1).shape == (40, 56, 1)
    np.testing.assert_array_equal(decode(data, 3), decode(data, 1).repeat(3, -1))


def test_sixteen_bits_are_neither_scaled_nor_clipped() -> None:
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(decode(encoded(deep, "PNG"), 1)[..., 0], deep)


def test_transparency_is_dropped_and_rotation_tags_are_ignored() -> None:
    clear = np.dstack([IMAGE, np.zeros(IMAGE.shape[:2], np.uint8)])
    np.testing.assert_array_equal(decode(encoded(clear, "PNG"), 3), IMAGE)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode(encoded(IMAGE, exif=exif), 3).shape == IMAGE.shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "text": b"<html>404</html>",
        "cut JPEG": encoded(pixels(1))[:300],
        "AVIF without a place": encoded(pixels(1), "AVIF").replace(b"iloc", b"xxxx"),
        "cut PNG": encoded(pixels(1), "PNG")[:300],
        "JPEG header only": b"\xff\xd8\xff\xe0",
        "float TIFF": encoded(np.ones((4, 4), np.float32), "TIFF")[:-60],
    }.items(),
    ids=lambda item: item[0],
)
def test_a_broken_file_gives_a_reason_of_one_line(data: tuple[str, bytes], channels: int) -> None:
    with pytest.raises(BrokenImage) as error:
        decode(data[1], channels)
    assert str(error.value)
    assert "\n" not in str(error.value)


def test_eight_bits_have_their_own_channels_or_one_or_three() -> None:
    with pytest.raises(BrokenImage, match="has 3 channels; give --in_chans 3"):
        decode(encoded(IMAGE), 12)


def as_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    """What the published loader reads."""
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def with_stray_bytes(data: bytes) -> bytes:
    """Bytes that do not belong before a marker, of which libjpeg warns."""
    place = data.index(b"\xff\xdb")
    return data[:place] + b"\0\0\0" + data[place:]


@pytest.mark.parametrize(
    "data",
    {
        "stray bytes": with_stray_bytes(encoded(IMAGE)),
        "CMYK": encoded(IMAGE, mode="CMYK"),
        "RGB": encoded(IMAGE, keep_rgb=True),
        "4:2:2": encoded(IMAGE, subsampling=1),
        "grey": encoded(IMAGE[..., 0]),
        "long tail": encoded(IMAGE) + b"\0" * 64,
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_odd_jpegs_are_what_pillow_reads(data: tuple[str, bytes], channels: int, mode: str) -> None:
    expected = as_pillow(data[1], mode).reshape(40, 56, channels)
    np.testing.assert_array_equal(decode(data[1], channels), expected)


def test_an_orientation_is_followed_only_where_it_is_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(IMAGE, kind, exif=exif)
        plain = as_pillow(data)
        np.testing.assert_array_equal(decode(data, 3), plain)
        np.testing.assert_array_equal(decode(data, 3, how=Decoding(exif=True)), np.rot90(plain, -1))
    np.testing.assert_array_equal(decode(encoded(IMAGE), 3, how=Decoding(exif=True)), decode(encoded(IMAGE), 3))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_limit_of_pixels_is_the_same_for_every_format(kind: str) -> None:
    data, pixels_of_it = encoded(IMAGE, kind), 40 * 56
    assert decode(data, 3, how=Decoding(max_pixels=pixels_of_it)).shape == (40, 56, 3)
    with pytest.raises(BrokenImage, match="its 56 x 40 pixels exceed 2,239; raise --max_image_pixels"):
        decode(data, 3, how=Decoding(max_pixels=pixels_of_it - 1))


def test_the_limit_can_be_raised_above_pillows() -> None:
    large = np.zeros((13_400, 13_400), bool)  # 179.6 million, of which Pillow by itself raises an error
    data = encoded(large, "PNG", compress_level=1)
    with pytest.raises(BrokenImage, match="exceed 178,956,970"):
        decode(data, 1)
    assert decode(data, 1, how=Decoding(max_pixels=200_000_000)).shape == (13_400, 13_400, 1)


def test_twelve_bits_in_sixteen_keep_their_values() -> None:
    deep = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(decode(encoded(deep, "PNG"), 1)[..., 0], deep)
    colours = np.linspace(0, 4095, 8 * 8 * 3).astype(np.uint16).reshape(8, 8, 3)
    for each in (colours, (colours << 4).astype(np.uint16)):
        np.testing.assert_array_equal(decode(png16(each), 3), each)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits per colour, which Pillow reads and does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    made = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def tiff(bands: int) -> bytes:
    """A TIFF of uint8 bands, as instruments write them."""
    tags = ((256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 122))
    tags = (*tags, (277, 3, 1, bands), (278, 3, 1, 4), (279, 4, 1, 16 * bands))
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4).ljust(122, b"\0") + bytes(16 * bands)


def test_a_tiff_of_five_bands_has_five_channels() -> None:
    np.testing.assert_array_equal(decode(tiff(5), 5), np.zeros((4, 4, 5), np.uint8))
    with pytest.raises(BrokenImage, match="has 5 channels; give --in_chans 5"):
        decode(tiff(5), 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_tiff_is_one_line() -> None:
    with pytest.raises(BrokenImage, match="a damaged TIFF"):
        decode(b"II*\0\xff\xff\xff\xff", 3)
