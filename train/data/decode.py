"""Decode image files to arrays of the type that they hold."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from train.data.arrays import (
    NPY,
    ORIENTATION,
    TIFF,
    Axis,
    OtherChannels,
    channel_axes,
    opened_tiff,
    read_deep,
    read_npy,
    read_tiff,
    to_hwc,
)
from train.data.values import BrokenImage as BrokenImage
from train.errors import TrainError

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
SIZ = b"\xff\x4f\xff\x51"  # begins the codestream of a JPEG 2000
COLOURS = ("YCbCr", "RGB")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # 16 bits per pixel
DEPTH = 42  # bytes from there to the number of bits, minus 1
GREY = ("1", "L", "LA", "La")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, MemoryError, RuntimeError, struct.error)
BITS, SAMPLES = 258, 277
"""TIFF tags: bits per sample, samples per pixel."""

Image.MAX_IMAGE_PIXELS = None  # Decoding.max_pixels takes its place, for every format alike

MinSize = Callable[[int, int], tuple[int, int]]
"""(height, width) of an image -> the smallest (height, width) to decode it to."""


@dataclass(frozen=True)
class Decoding:
    """What a reader may choose about files.

    exif: rotate by the EXIF orientation; the published loader does not. max_pixels: larger images
    are broken; the default is Pillow's limit. bits: significant bits of 16-bit images (None: 16).
    channel_axis: where the channels of an array are (None: where there are as many as the model has).
    """

    exif: bool = False
    max_pixels: int = 178_956_970
    bits: int | None = None
    channel_axis: Axis | None = None


PLAIN = Decoding()


def decode(data: bytes, channels: int | None, min_size: MinSize | None = None, how: Decoding = PLAIN) -> np.ndarray:
    """Decode an image file to (H, W, channels) of the type that it holds; channels None: as many as it has.

    8-bit files are bit-equal to Pillow's result, which the published loader uses: colour becomes grey for
    1 channel, grey becomes RGB for 3, which drop transparency; 2 and 4 keep it. Other files and arrays
    must have the number of channels. libjpeg-turbo itself decodes ordinary JPEGs 10 % faster.
    min_size: allows to decode a JPEG at 1/2, 1/4, ... of its size, which gives other pixels.
    Raises BrokenImage, or TrainError if the axis of channels must be given.
    """
    try:
        if data.startswith(NPY):
            return to_hwc(read_npy(data), channels, how.channel_axis)
        if data.startswith(TIFF):
            return _decode_tiff(data, channels, how)
        pixels = _decode_jpeg(data, channels, min_size, how) if data.startswith(JPEG) and channels in (1, 3) else None
        return _decode_by_pillow(data, channels, how) if pixels is None else pixels
    except UnidentifiedImageError:  # its text holds an address in memory
        raise BrokenImage("no known image format" if data else "an empty file") from None
    except TrainError:
        raise
    except UNREADABLE as error:
        raise BrokenImage(" ".join(str(error).split()) or type(error).__name__) from None


class Probe(NamedTuple):
    """What an image tells of its data set: the type of its values, transparency, named axes, a format with EXIF."""

    dtype: np.dtype
    transparent: bool = False
    named_axes: bool = True
    exif: bool = True


def probe(data: bytes | np.ndarray, how: Decoding = PLAIN) -> Probe:
    """Look into an image. Raises BrokenImage."""
    if isinstance(data, np.ndarray) or data.startswith(NPY):
        array = data if isinstance(data, np.ndarray) else read_npy(data)
        return Probe(array.dtype, named_axes=array.ndim != 3, exif=False)
    if data.startswith(TIFF):
        with opened_tiff(data) as series:
            return Probe(series.dtype, named_axes=bool(channel_axes(series)) or len(series.shape) != 3)
    pixels = decode(data, None, how=how)
    return Probe(pixels.dtype, pixels.shape[-1] in (2, 4))


def _decode_jpeg(data: bytes, channels: int, min_size: MinSize | None, how: Decoding) -> np.ndarray | None:
    """The pixels of a JPEG where libjpeg-turbo gives Pillow's; None where Pillow must decide.

    simplejpeg raises on libjpeg's warnings, which Pillow accepts, and it converts CMYK with other
    roundings, as it does colour to grey.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if how.exif or height * width > how.max_pixels or space not in (*COLOURS, "Gray"):
            return None
        grey = space not in COLOURS and channels == 1
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", **_scale(height, width, min_size))
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None] if channels == 1 and not grey else pixels
    except ValueError:
        return None


def _scale(height: int, width: int, min_size: MinSize | None) -> dict[str, int]:
    """The arguments that let libjpeg-turbo decode to a smaller size."""
    if min_size is None:
        return {}
    low, narrow = min_size(height, width)
    return {"min_height": low, "min_width": narrow, "min_factor": 2} if 2 * low <= height else {}


def _decode_tiff(data: bytes, channels: int | None, how: Decoding) -> np.ndarray:
    """The pixels of a TIFF: by Pillow for grey or RGB if that reads all of the file, else by tifffile."""
    if channels in (1, 3):
        try:
            with Image.open(io.BytesIO(data)) as image:
                if _is_plain(image):
                    return _decode_by_pillow(data, channels, how)
        except UnidentifiedImageError:
            pass
    return read_tiff(data, channels, how.channel_axis, how.max_pixels, how.exif)


def _is_plain(image: Any) -> bool:
    """Whether a TIFF has one page whose samples Pillow keeps: all of them, of 8 bits, or grey of 16."""
    tags = image.tag_v2
    whole = image.n_frames == 1 and tags.get(SAMPLES, 1) == len(image.getbands())
    return whole and (image.mode in DEEP or (image.mode not in ("I", "F") and max(tags.get(BITS, (1,))) <= 8))


def _decode_by_pillow(data: bytes, channels: int | None, how: Decoding) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > how.max_pixels:
            raise BrokenImage(
                f"its {image.width} x {image.height} pixels exceed {how.max_pixels:,}; raise --max_image_pixels"
            )
        if codec := _deep_codec(data, image):
            if how.exif and image.getexif().get(ORIENTATION, 1) != 1:
                raise BrokenImage("--exif: is not applied to its 16 bits; rotate the image, and remove its tag")
            return to_hwc(read_deep(data, codec), channels, "last")
        if image.mode in ("I", "F"):
            raise BrokenImage(f"its pixels (mode {image.mode}) are neither 8 nor 16 bits; write them as TIFF or .npy")
        shown: Image.Image = ImageOps.exif_transpose(image) if how.exif else image
        return _deep_grey(shown, channels) if image.mode in DEEP else _eight_bits(shown, channels)


def _deep_codec(data: bytes, image: Image.Image) -> Literal["png", "jpeg2k"] | None:
    """The codec for a file whose values Pillow would scale or cut to their high byte."""
    if data.startswith(PNG):
        return "png" if data[24] == 16 and image.mode not in DEEP else None
    start = data.find(SIZ) if image.format == "JPEG2000" else -1
    return "jpeg2k" if start >= 0 and data[start + DEPTH] & 127 > 7 else None


def _deep_grey(image: Image.Image, channels: int | None) -> np.ndarray:
    """16-bit grey; for 3 channels each of them is the grey one, as with 8 bits."""
    pixels = to_hwc(np.asarray(image), 1 if channels == 3 else channels)
    return pixels.repeat(3, -1) if channels == 3 else pixels


def _eight_bits(image: Image.Image, channels: int | None) -> np.ndarray:
    """Pillow's conversion to the number of channels."""
    own = (1 if image.mode in GREY else 3) + image.has_transparency_data
    if channels not in (None, 1, 3, own):
        raise OtherChannels(f"has {own} channels; give --in_chans {own}")
    pixels = np.asarray(image.convert(MODES[channels or own]))
    return pixels.reshape(*pixels.shape[:2], -1)
