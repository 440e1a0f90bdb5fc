"""Input checks shared by both backends: images, masks, engines, arrays."""

from collections.abc import Mapping

import numpy as np

import spec
from backends.protocol import Arrays, BackendError


def check_images(model: spec.Model, images: np.ndarray) -> None:
    """BackendError unless images are (N, H, W, C) in a size and channels that the model takes."""
    chans, patch = model.encoder.in_chans, model.encoder.patch_size
    if images.ndim != 4 or images.shape[-1] != chans or not len(images):
        raise BackendError(f"images: {images.shape} is not (N, H, W, {chans}); channels come last")
    height, width = images.shape[1:3]
    if height % patch or width % patch or not height or not width:
        raise BackendError(f"images: {height} x {width} pixels are no multiple of the patch, {patch}; resize or crop")


def visible_patches(mask: np.ndarray | None, images: np.ndarray, patch: int) -> int | None:
    """K, the number of patches the mask keeps of every image, or None where images differ.

    BackendError when the mask has the wrong shape or leaves nothing of an image.
    """
    grid = (len(images), images.shape[1] // patch, images.shape[2] // patch)
    if mask is None:
        return grid[1] * grid[2]
    if mask.shape != grid:
        raise BackendError(f"mask: {mask.shape} is not {grid}, one entry a patch of {patch} pixels, 1 = removed")
    kept = (mask == 0).sum((1, 2))
    if not kept.all():
        raise BackendError(f"mask: image {int(kept.argmin())} has no visible patch; keep at least one of {grid[1:]}")
    return int(kept[0]) if (kept == kept[0]).all() else None


def choose_engine(engine: str | None, engines: tuple[str, ...], mask: np.ndarray | None, visible: int | None) -> str:
    """The engine asked for, or the best one: visible where a mask keeps the same number of every image."""
    if engine is None:
        return "masked" if mask is None or visible is None else "visible"
    if engine == "minkowski" and engine not in engines:
        raise BackendError("engine: 'minkowski' is backend torch's and needs MinkowskiEngine; build it: make minkowski")
    if engine not in engines:
        raise BackendError(f"engine: {engine!r} is unknown; choose one of {', '.join(map(repr, engines))}")
    if engine == "visible" and visible is None:
        raise BackendError("mask: images keep different numbers of patches; give each the same, or use engine='masked'")
    return engine


def check_arrays(model: spec.Model, arrays: Mapping[str, np.ndarray], what: str = "parameters") -> None:
    """BackendError naming every missing, unknown and misshapen array."""
    table = spec.parameters(model)
    wrong = [f"missing {name}" for name in table if name not in arrays]
    wrong += [f"unknown {name}" for name in arrays if name not in table]
    for name, param in table.items():
        if name in arrays and np.shape(arrays[name]) != param.shape:
            wrong.append(f"{name} has {np.shape(arrays[name])}, the spec says {param.shape}")
    if wrong:
        more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise BackendError(f"{what}: {'; '.join(wrong[:10])}{more}")


def in_model_order(model: spec.Model, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: arrays[name] for name in spec.parameters(model)}
