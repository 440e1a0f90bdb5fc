"""Pictures of reconstructions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import spec

TILE = 128  # smallest side of an image on the picture, in pixels
GAP, MARGIN, LABEL = 10, 24, 132
INK, PAPER, REMOVED = (38, 38, 38), (255, 255, 255), 214
LOW, HIGH = 2, 98  # per cent
TITLES = ("original", "visible", "reconstruction")


def reconstruct(
    images: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    model: spec.FCMAE,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """(N, H, W, C): predicted patches where the mask removed them, the image's pixels elsewhere.

    images (N, H, W, C) uint8, or float32 in the unit of mean and std, as is the result; prediction
    (N, G_h, G_w, patch * patch * C). If the targets are normalised, the prediction gets the mean and
    variance of the true patch, as in published pictures.
    """
    patches = _normalised_patches(images, model, mean, std)
    center, scale = _target_scale(patches, model)
    predicted = prediction.astype(np.float64) * scale + center
    filled = unpatchify(np.where(mask[..., None] != 0, predicted, patches), model.encoder.patch_size)
    found = filled * np.asarray(std) + np.asarray(mean)
    if images.dtype != np.uint8:
        return found.astype(np.float32)
    return np.rint(255 * found).clip(0, 255).astype(np.uint8)


def masked_losses(
    images: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    model: spec.FCMAE,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """(N,) `spec.MaskedError` of each image, in float64; arguments as in `reconstruct`."""
    patches = _normalised_patches(images, model, mean, std)
    center, scale = _target_scale(patches, model)
    errors = ((prediction - (patches - center) / scale) ** 2).mean(-1)
    return np.where(mask != 0, errors, 0).sum((1, 2)) / (mask != 0).sum((1, 2))


def _target_scale(patches: np.ndarray, model: spec.FCMAE) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from patches, and what divides them, to make targets: (N, G_h, G_w, 1), or 0 and 1."""
    if not model.norm_target:
        return np.zeros(()), np.ones(())
    return patches.mean(-1, keepdims=True), np.sqrt(patches.var(-1, ddof=1, keepdims=True) + spec.EPS)


def _normalised_patches(
    images: np.ndarray, model: spec.FCMAE, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    whole = 255 if images.dtype == np.uint8 else 1
    pixels = (images / whole - np.asarray(mean)) / np.asarray(std)
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


def caption(channels: int, values: str, chosen: Sequence[int] | None = None) -> str:
    """What pictures show of images with this many channels; "" for uint8 with one or three, unless some are chosen."""
    shown = " ".join(map(str, _shown(channels, chosen)))
    parts = [f"channels {shown}"] if chosen or channels not in (1, 3) else []
    parts += [f"each stretched from its {LOW} to its {HIGH} % quantile"] if values != "uint8" else []
    return ", ".join(parts)


def _shown(channels: int, chosen: Sequence[int] | None) -> Sequence[int]:
    """The chosen channels; by default the first three, or the first."""
    return chosen or range(3 if channels >= 3 else 1)


def triptych(
    images: np.ndarray, mask: np.ndarray, reconstructed: np.ndarray, patch: int, chosen: Sequence[int] | None = None
) -> Image.Image:
    """Three labelled rows, one column per image: originals, visible patches, reconstructions; and the caption.

    chosen: the channels to show. Those of images that are not uint8 are stretched by quantiles of the originals.
    """
    note, shown = caption(images.shape[-1], images.dtype.name, chosen), [*_shown(images.shape[-1], chosen)]
    images, reconstructed = _eight_bits(images[..., shown], reconstructed[..., shown])
    removed = mask.repeat(patch, 1).repeat(patch, 2)[..., None] != 0
    rows = (images, np.where(removed, np.uint8(REMOVED), images), reconstructed)
    scale = max(1, -(-TILE // max(images.shape[1:3])))
    height, width = (side * scale for side in images.shape[1:3])
    size = (LABEL + len(images) * (width + GAP) - GAP + 2 * MARGIN, 3 * (height + GAP) - GAP + 2 * MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    pen.text((MARGIN, size[1] - MARGIN // 2), note, fill=INK, font=ImageFont.load_default(12), anchor="lm")
    for row, (title, tiles) in enumerate(zip(TITLES, rows, strict=True)):
        top = MARGIN + row * (height + GAP)
        pen.text((MARGIN, top + height // 2), title, fill=INK, font=font, anchor="lm")
        for column, tile in enumerate(tiles):
            sheet.paste(_enlarge(tile, scale), (MARGIN + LABEL + column * (width + GAP), top))
    return sheet


def _eight_bits(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as uint8: unchanged, or per channel from quantile LOW to quantile HIGH of the images, clipped."""
    if images.dtype == np.uint8:
        return images, others
    low, high = np.percentile(images, (LOW, HIGH), axis=(0, 1, 2))
    stretched = ((each - low) / np.maximum(high - low, np.finfo(np.float32).tiny) for each in (images, others))
    one, other = (np.rint(255 * each.clip(0, 1)).astype(np.uint8) for each in stretched)
    return one, other


def _enlarge(image: np.ndarray, scale: int) -> Image.Image:
    """One or three channels (H, W, C), each pixel enlarged to a square."""
    shown = image if image.shape[-1] == 3 else image.repeat(3, -1)
    return Image.fromarray(np.ascontiguousarray(shown.repeat(scale, 0).repeat(scale, 1)))
