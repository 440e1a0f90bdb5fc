"""Read images that are arrays: .npy, TIFF of any bands and type (tifffile), deep PNG and JPEG 2000 (imagecodecs)."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

import numpy as np

from spec.console import one_line
from train.data.values import BrokenImage
from train.errors import TrainError

NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 274  # the tag of TIFF
Axis = Literal["first", "last"]


class OtherChannels(BrokenImage):
    """An image does not have the model's number of channels."""


def read_npy(data: bytes) -> np.ndarray:
    """The array of a .npy file. Pickled objects are refused."""
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))


def read_tiff(data: bytes, channels: int | None, axis: Axis | None, max_pixels: int, exif: bool) -> np.ndarray:
    """The main image of a TIFF as (H, W, C), of the type that it holds.

    Pages of the same size are channels. Where the file does not name their axis, `to_hwc` finds it.
    """
    with opened_tiff(data) as series:
        check_size(series.shape, max_pixels)
        if exif and series.keyframe.tags.valueof(ORIENTATION, 1) != 1:
            raise BrokenImage("--exif: is not applied to TIFFs of this kind; rotate the image, and remove its tag")
        pixels, named = series.asarray(), channel_axes(series)
    if pixels.ndim == 3 and named:
        return to_hwc(np.moveaxis(pixels, named[0], -1), channels, "last")
    return to_hwc(pixels, channels, axis)


def channel_axes(series: Any) -> list[int]:
    """The axes that a TIFF itself calls samples or channels."""
    return [place for place, name in enumerate(series.axes) if name in "SC"]


@contextmanager
def opened_tiff(data: bytes) -> Iterator[Any]:
    """The main image of a TIFF, as tifffile describes it: `shape`, `axes` such as "YXS", `dtype`, `asarray()`."""
    tifffile = _imported("tifffile")
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            yield file.series[0]
    except (BrokenImage, ImportError):
        raise
    except Exception as error:  # of any kind, in a damaged file
        raise BrokenImage(f"a damaged TIFF, or of a kind that is not read ({one_line(str(error))})") from None


def read_deep(data: bytes, codec: Literal["png", "jpeg2k"]) -> np.ndarray:
    """The pixels (H, W) or (H, W, C) of a PNG or JPEG 2000 with more than 8 bits, all of them."""
    return np.asarray(getattr(_imported("imagecodecs"), f"{codec}_decode")(data))


def to_hwc(array: np.ndarray, channels: int | None, axis: Axis | None = None) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) as (H, W, C) in the machine's byte order.

    axis: where the channels are; None: where there are `channels`. Raises TrainError if that can be either,
    OtherChannels if it is neither, BrokenImage for another number of axes.
    """
    if array.ndim not in (2, 3) or not array.size:
        raise BrokenImage(f"its shape {array.shape} is neither (H, W), (H, W, C) nor (C, H, W)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2:
        return fitting(array[..., None], channels)
    axis = axis or _axis(array.shape, channels)
    return fitting(np.moveaxis(array, 0, -1) if axis == "first" else array, channels)


def fitting(pixels: np.ndarray, channels: int | None) -> np.ndarray:
    """(H, W, C) if C is the number of channels, or that is None; raises OtherChannels."""
    if channels not in (None, pixels.shape[-1]):
        raise OtherChannels(f"has {pixels.shape[-1]} channels; give --in_chans {pixels.shape[-1]}")
    return pixels


def check_size(shape: tuple[int, ...], max_pixels: int) -> None:
    """BrokenImage if the two longest axes have more than `max_pixels` pixels."""
    sides = sorted(shape)[-2:]
    if math.prod(sides) > max_pixels:
        size = " x ".join(str(side) for side in shape if side in sides)
        raise BrokenImage(f"its {size} pixels exceed {max_pixels:,}; raise --max_image_pixels")


def _axis(shape: tuple[int, ...], channels: int | None) -> Axis:
    """Where the channels of three axes are."""
    fits: list[Axis] = ["first"] if channels in (None, shape[0]) else []
    fits += ["last"] if channels in (None, shape[-1]) else []
    if len(fits) == 2:
        raise TrainError(
            f"--channel_axis: the shape {shape} does not tell which axis holds the channels;"
            " give --channel_axis first or --channel_axis last"
        )
    if not fits:
        found = min(shape[0], shape[-1])
        raise OtherChannels(f"has {found} channels; give --in_chans {found}")
    return fits[0]


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise BrokenImage(f"needs {name} to be read; pip install 'twinnext[arrays]'") from None
