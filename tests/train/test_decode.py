"""Files to pixels: equal to Pillow on good files, a reason for each bad one."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.train.images import encoded, pixels
from train.data.decode import BrokenImage, decode

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


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(decode(encoded(deep, "PNG"), 1)[..., 0], deep >> 8)


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
        "cut PNG": encoded(pixels(1), "PNG")[:300],
        "JPEG header only": b"\xff\xd8\xff\xe0",
        "float TIFF": encoded(np.ones((4, 4), np.float32), "TIFF"),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_broken_file_gives_a_reason_of_one_line(data: tuple[str, bytes], channels: int) -> None:
    with pytest.raises(BrokenImage) as error:
        decode(data[1], channels)
    assert str(error.value)
    assert "\n" not in str(error.value)


def test_files_have_one_or_three_channels() -> None:
    with pytest.raises(BrokenImage, match="1 or 3 channels, the model 12"):
        decode(encoded(IMAGE), 12)
