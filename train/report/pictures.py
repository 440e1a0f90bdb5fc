"""Pictures of reconstructions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import spec

TILE = 128  # smallest side of an image on the picture, in pixels
GAP, MARGIN, LABEL = 10, 24, 132
INK, PAPER, REMOVED = (38, 38, 38), (255, 255, 255), 214
TITLES = ("original", "visible", "reconstruction")


def reconstruct(
    images: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    model: spec.FCMAE,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """(N, H, W, C) uint8: predicted patches where the mask removed them, the image's pixels elsewhere.

    images (N, H, W, C) uint8; prediction (N, G_h, G_w, patch * patch * C). If the
    targets are normalised, the prediction gets the mean and variance of the true patch, as in published pictures.
    """
    patches = _normalised_patches(images, model, mean, std)
    predicted = prediction.astype(np.float64)
    if model.norm_target:
        variance = patches.var(-1, ddof=1, keepdims=True)
        predicted = predicted * np.sqrt(variance + spec.EPS) + patches.mean(-1, keepdims=True)
    filled = unpatchify(np.where(mask[..., None] != 0, predicted, patches), model.encoder.patch_size)
    return np.rint((filled * np.asarray(std) + np.asarray(mean)) * 255).clip(0, 255).astype(np.uint8)


def masked_losses(
    images: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    model: spec.FCMAE,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """(N,) `spec.MaskedError` of each image, in float64; arguments as in `reconstruct`."""
    target = _normalised_patches(images, model, mean, std)
    if model.norm_target:
        variance = target.var(-1, ddof=1, keepdims=True)
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(variance + spec.EPS)
    errors = ((prediction - target) ** 2).mean(-1)
    return np.where(mask != 0, errors, 0).sum((1, 2)) / (mask != 0).sum((1, 2))


def _normalised_patches(
    images: np.ndarray, model: spec.FCMAE, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    pixels = (images / 255 - np.asarray(mean)) / np.asarray(std)
    return patchify(pixels, model.encoder.patch_size)


def patchify(images: np.ndarray, patch: int) -> np.ndarray:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C), in the order row, column, channel."""
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // patch, patch, width // patch, patch, channels)
    return grid.swapaxes(2, 3).reshape(n, height // patch, width // patch, -1)


def unpatchify(patches: np.ndarray, patch: int) -> np.ndarray:
    """The inverse of `patchify`."""
    n, rows, columns, values = patches.shape
    grid = patches.reshape(n, rows, columns, patch, patch, values // patch**2)
    return grid.swapaxes(2, 3).reshape(n, rows * patch, columns * patch, -1)


def triptych(images: np.ndarray, mask: np.ndarray, reconstructed: np.ndarray, patch: int) -> Image.Image:
    """Three labelled rows, one column per image: originals, visible patches, reconstructions."""
    removed = mask.repeat(patch, 1).repeat(patch, 2)[..., None] != 0
    rows = (images, np.where(removed, np.uint8(REMOVED), images), reconstructed)
    scale = max(1, -(-TILE // max(images.shape[1:3])))
    height, width = (side * scale for side in images.shape[1:3])
    size = (LABEL + len(images) * (width + GAP) - GAP + 2 * MARGIN, 3 * (height + GAP) - GAP + 2 * MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, (title, tiles) in enumerate(zip(TITLES, rows, strict=True)):
        top = MARGIN + row * (height + GAP)
        pen.text((MARGIN, top + height // 2), title, fill=INK, font=font, anchor="lm")
        for column, tile in enumerate(tiles):
            sheet.paste(_enlarge(tile, scale), (MARGIN + LABEL + column * (width + GAP), top))
    return sheet


def _enlarge(image: np.ndarray, scale: int) -> Image.Image:
    """The first one or three channels of (H, W, C), each pixel enlarged to a square."""
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, -1)
    return Image.fromarray(np.ascontiguousarray(shown.repeat(scale, 0).repeat(scale, 1)))
