"""Masks that come with the data: where an image has no data, such as clouds or the border of a scan.

A mask is (h, w), nonzero = no data. It covers its image: h and w divide the image's height and width, so it is one
value per pixel, or per square of pixels. It is cropped, resized and flipped with the image. A patch is without data
if at least half of its pixels are.

Every image still keeps exactly K patches. Patches without data are removed first, then those that --mask_policy
removes. If more are without data than can be removed, those that the policy removes go first, then random ones, and
the others stay visible. The loss counts removed patches without data like all removed ones.
"""

import io

import numpy as np
from PIL import Image

from train.data.arrays import NPY, read_npy
from train.data.decode import JPEG, UNREADABLE, BrokenImage


def joined(image: np.ndarray, mask: object, key: str) -> np.ndarray:
    """(H, W, C + 1): the image, and its mask as one more channel, so that both are transformed alike.

    mask: as the source stores it: an array, nested lists, or the bytes of a .npy or image file. key: names it
    to the user. BrokenImage if it is no mask of this image.
    """
    if mask is None:
        raise BrokenImage(f"{key}: has no mask")
    try:
        cells = _decoded(mask)
    except UNREADABLE as error:
        raise BrokenImage(f"{key}: its mask cannot be read ({' '.join(str(error).split())})") from None
    (height, width), full = image.shape[:2], _full(image)
    if cells.ndim != 2 or cells.dtype.kind not in "biu" or not cells.size:
        raise BrokenImage(f"{key}: its mask is {cells.dtype} {cells.shape}, not bool or integers (height, width)")
    if height % cells.shape[0] or width % cells.shape[1]:
        raise BrokenImage(
            f"{key}: its mask is {cells.shape[0]} x {cells.shape[1]}, which does not divide the image's"
            f" {height} x {width}"
        )
    pixels = (cells != 0).repeat(height // cells.shape[0], 0).repeat(width // cells.shape[1], 1)
    return np.concatenate([image, (pixels * full).astype(image.dtype)[..., None]], -1)


def split(images: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(..., H, W, C) images without their masks, and (..., H, W) the masks; None where there are none."""
    if images.shape[-1] == channels:
        return images, None
    return np.ascontiguousarray(images[..., :channels]), images[..., channels] / _full(images)


def empty_patches(no_data: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(N, G_h, G_w) bool: the patches without data. no_data: (N, H, W), 1 = no data."""
    count, height, width = no_data.shape
    patches = no_data.reshape(count, grid[0], height // grid[0], grid[1], width // grid[1])
    return np.asarray(patches.mean((2, 4)) >= 0.5)


def remove_first(mask: np.ndarray, empty: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask that removes as many patches as `mask`, those without data first. Both are (G_h, G_w)."""
    keys = rng.bit_generator.random_raw(mask.size), -mask.reshape(-1).astype(int), ~empty.reshape(-1)
    changed = np.zeros_like(mask)
    changed.reshape(-1)[np.lexsort(keys)[: int(mask.sum())]] = 1
    return changed


def _decoded(mask: object) -> np.ndarray:
    if not isinstance(mask, bytes):
        return np.asarray(mask)
    if mask.startswith(NPY):
        return read_npy(mask)
    if mask.startswith(JPEG):
        raise ValueError("JPEG changes values; store it as png or npy")
    with Image.open(io.BytesIO(mask)) as image:
        return np.asarray(image)


def _full(image: np.ndarray) -> int:
    """The value of the mask's channel where there is no data."""
    return 255 if image.dtype == np.uint8 else 1
