"""Decode image files to uint8 arrays."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*")
COLOURS = ("YCbCr", "RGB")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # 16 bits per pixel, which Pillow's convert would clip
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, MemoryError, RuntimeError, struct.error)
BITS, SAMPLES = 258, 277
"""TIFF tags: bits per sample, samples per pixel."""

Image.MAX_IMAGE_PIXELS = None  # Decoding.max_pixels takes its place, for every format alike

MinSize = Callable[[int, int], tuple[int, int]]
"""(height, width) of an image -> the smallest (height, width) to decode it to."""


class BrokenImage(Exception):
    """An image cannot be read; the message names the image and the reason."""


@dataclass(frozen=True)
class Decoding:
    """What a reader may choose about files.

    exif: rotate by the EXIF orientation; the published loader does not. max_pixels: larger images
    are broken; the default is Pillow's limit. bits: significant bits of 16-bit grey images; None:
    16, but an image whose values fit in 12 bits is broken, for it would be black.
    """

    exif: bool = False
    max_pixels: int = 178_956_970
    bits: int | None = None


PLAIN = Decoding()


def decode(data: bytes, channels: int, min_size: MinSize | None = None, how: Decoding = PLAIN) -> np.ndarray:
    """Decode an image file to (H, W, channels) uint8: grey for 1 channel, RGB for 3. Raises BrokenImage.

    The result is bit-equal to Pillow's, which the published loader uses: transparency is dropped,
    and what Pillow reads is read. libjpeg-turbo itself decodes ordinary JPEGs 10 % faster.
    min_size: allows to decode a JPEG at 1/2, 1/4, ... of its size, which gives other pixels.
    """
    if channels not in (1, 3):
        raise BrokenImage(f"an image file has 1 or 3 channels, the model {channels}")
    try:
        pixels = _decode_jpeg(data, channels, min_size, how) if data.startswith(JPEG) else None
        return _decode_by_pillow(data, channels, how) if pixels is None else pixels
    except UnidentifiedImageError:  # its text holds an address in memory
        raise BrokenImage(_unidentified(data)) from None
    except UNREADABLE as error:
        raise BrokenImage(" ".join(str(error).split()) or type(error).__name__) from None


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


def _decode_by_pillow(data: bytes, channels: int, how: Decoding) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > how.max_pixels:
            raise BrokenImage(
                f"its {image.width} x {image.height} pixels exceed {how.max_pixels:,}; raise --max_image_pixels"
            )
        shown: Image.Image = ImageOps.exif_transpose(image) if how.exif else image
        if image.mode in DEEP:
            shown = Image.fromarray(_eight_bits(np.asarray(shown), how.bits))
        elif image.mode in ("I", "F"):
            raise BrokenImage(f"its pixels (mode {image.mode}) are neither 8 nor 16 bits")
        pixels = np.asarray(shown.convert("L" if channels == 1 else "RGB"))
        if how.bits != 16 and _has_deep_colours(data, image) and 0 < pixels.max() < 16:
            raise BrokenImage("its 16-bit colours use 12 bits or less and would be black; convert it to 8 bits")
    return pixels.reshape(*pixels.shape[:2], channels)


def _eight_bits(pixels: np.ndarray, bits: int | None) -> np.ndarray:
    """The highest 8 of `bits` significant bits. Raises BrokenImage for values that do not fit."""
    largest = int(pixels.max(initial=0))
    if bits is None and 0 < largest < 4096:
        raise BrokenImage(
            f"its 16-bit values end at {largest:,} and would be black; give --image_bits 12 (their range), or 16"
        )
    if largest >> (bits or 16):
        raise BrokenImage(f"its 16-bit values reach {largest:,}, more than --image_bits {bits} allows")
    return (pixels >> ((bits or 16) - 8)).astype(np.uint8)


def _has_deep_colours(data: bytes, image: Image.Image) -> bool:
    """Whether Pillow has cut 16 bits per colour to their high byte."""
    if data.startswith(PNG):
        return data[24] == 16 and image.mode not in DEEP
    tags: Any = getattr(image, "tag_v2", {})
    return max(tags.get(BITS, (8,))) == 16 and image.mode not in DEEP


def _unidentified(data: bytes) -> str:
    """Why Pillow does not open a file."""
    if not data:
        return "an empty file"
    return _other_tiff(data) if data.startswith(TIFF) else "no known image format"


def _other_tiff(data: bytes) -> str:
    """What is in a TIFF that Pillow does not open, and how its pixels can be used."""
    try:
        bands, bits = _tiff_tag(data, SAMPLES), _tiff_tag(data, BITS)
    except struct.error:
        return "a damaged TIFF"
    return (
        f"a TIFF with {bands} bands of {bits} bits, which Pillow does not read;"
        " store such images as an npz file, images (N, H, W, C) uint8"
    )


def _tiff_tag(data: bytes, wanted: int) -> int:
    """The first value of a tag of 16-bit numbers in the first directory; 1 without it."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        tag, _, count, pointer = struct.unpack_from(f"{order}HHII", data, entry)
        if tag == wanted:  # up to two values lie in the entry itself
            return int(struct.unpack_from(f"{order}H", data, entry + 8 if count <= 2 else pointer)[0])
    return 1
