"""Shared by both backends: checks of images, masks, engines and arrays; learning-rate scales."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np

import spec
from backends.protocol import Arrays, BackendError, Optimizer
from spec import checks


class Shaped(Protocol):
    """An array of any framework."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Choice(TypedDict):
    """The engine of a batch and K, the visible patches per image: arguments of a model's forward pass."""

    engine: str
    visible: int | None  # None where images keep different numbers, or where the number is unknown


def choose(
    model: spec.Model,
    engines: tuple[str, ...],
    engine: str | None,
    images: Shaped,
    mask: Shaped | None,
    values: np.ndarray | None,
    visible: int | None = None,
) -> Choice:
    """The engine to use and the number of visible patches; BackendError for what does not fit together.

    images (N, H, W, C); mask (N, G_h, G_w), 1 = removed, and its values, None while they are unknown.
    visible: the number of patches that the caller states.
    """
    check_images(model, images)
    counted = visible_patches(model, images, mask, values, visible)
    if model.encoder.grn_scope == "grid" and mask is not None:
        engine = _with_removed_sites(engine)
    return {
        "engine": choose_engine(engine, engines, mask, counted, known=mask is None or values is not None),
        "visible": counted,
    }


def _with_removed_sites(engine: str | None) -> str:
    """The engine that computes removed sites, too; BackendError if another one is asked for."""
    if engine not in (None, "masked"):
        raise BackendError(
            f"engine: {engine!r} computes no removed sites, over which grn_scope 'grid' sums; use engine='masked'"
        )
    return "masked"


def map_axes(layout: str) -> tuple[int, ...]:
    """The axes of (N, H, W, C) in the order of a layout of feature maps, "NHWC" or "NCHW"; SpecError for others."""
    checks.one_of("layout", layout, ("NHWC", "NCHW"))
    return tuple(map("NHWC".index, layout))


def check_images(model: spec.Model, images: Shaped) -> None:
    """BackendError unless images are (N, H, W, C) in a size and channels that the model takes."""
    chans, patch, shape = model.encoder.in_chans, model.encoder.patch_size, tuple(images.shape)
    if len(shape) != 4 or shape[-1] != chans or not shape[0]:
        raise BackendError(f"images: {shape} is not (N, H, W, {chans}); channels come last{_remedy(shape, chans)}")
    height, width = shape[1:3]
    if height % patch or width % patch or not height or not width:
        raise BackendError(f"images: {height} x {width} pixels are no multiple of the patch, {patch}; resize or crop")


def _remedy(shape: tuple[int, ...], chans: int) -> str:
    if len(shape) == 4 and shape[1] == chans:
        return ": transpose to (0, 2, 3, 1), in torch images.permute(0, 2, 3, 1)"
    return ": images[None] is a batch of one" if len(shape) == 3 and shape[-1] == chans else ""


def visible_patches(
    model: spec.Model, images: Shaped, mask: Shaped | None, values: np.ndarray | None, visible: int | None = None
) -> int | None:
    """K, the number of patches that the mask keeps of every image; None where images differ or it is unknown.

    BackendError when the mask has the wrong shape, leaves nothing of an image or does not keep `visible`.
    """
    patch = model.encoder.patch_size
    grid = (images.shape[0], images.shape[1] // patch, images.shape[2] // patch)
    patches = grid[1] * grid[2]
    if mask is not None and tuple(mask.shape) != grid:
        raise BackendError(
            f"mask: {tuple(mask.shape)} is not {grid}, one entry per patch of {patch} pixels, 1 = removed"
            + (f"; mask.reshape{grid}" if tuple(mask.shape) == (grid[0], patches) else "")
        )
    if mask is not None and values is None:
        return visible if visible is None else _in_range(visible, patches)
    counted = patches if values is None else _counted(values)
    if visible is not None and visible != counted:
        found = "different numbers" if counted is None else counted
        raise BackendError(f"visible: {visible}, and the mask keeps {found} of {patches} patches per image")
    return counted


def _in_range(visible: int, patches: int) -> int:
    if not 0 < visible <= patches:
        raise BackendError(f"visible: {visible} is not in 1..{patches}, the patches of an image")
    return visible


def _counted(mask: np.ndarray) -> int | None:
    kept = (mask == 0).sum((1, 2))
    if not kept.all():
        empty = int(kept.argmin())
        raise BackendError(f"mask: image {empty} has no visible patch; keep at least one of {mask.shape[1:]}")
    return int(kept[0]) if (kept == kept[0]).all() else None


def check_keep_paths(model: spec.Model, images: Shaped, keep_paths: Shaped | None, *, training: bool) -> None:
    """BackendError unless drop-path decisions are (N, blocks), and given where a model in training mode needs them."""
    expected = (images.shape[0], model.encoder.num_blocks)
    if keep_paths is None and training and model.encoder.drop_path:
        raise BackendError(
            f"keep_paths: missing in training mode with drop_path {model.encoder.drop_path:g}; give {expected}"
            " decisions, 1 = keep (0 with chance model.encoder.drop_path_rates()), or call .eval() on the module"
        )
    if keep_paths is not None and tuple(keep_paths.shape) != expected:
        raise BackendError(f"keep_paths: {tuple(keep_paths.shape)} is not {expected}, (images, blocks), 1 = keep")


def choose_engine(
    engine: str | None, engines: tuple[str, ...], mask: object, visible: int | None, *, known: bool = True
) -> str:
    """The engine asked for, or the best one: "visible" where a mask keeps the same number of every image."""
    if engine is None:
        return "masked" if mask is None or visible is None else "visible"
    if engine == "minkowski" and engine not in engines:
        raise BackendError("engine: 'minkowski' is backend torch's and needs MinkowskiEngine; build it: make minkowski")
    if engine not in engines:
        raise BackendError(f"engine: {engine!r} is unknown; choose one of {', '.join(map(repr, engines))}")
    if engine == "visible" and visible is None and known:
        raise BackendError("mask: images keep different numbers of patches; give each the same, or use engine='masked'")
    if engine == "visible" and visible is None:
        raise BackendError(
            "visible: the mask has no values yet; give the number of patches it keeps, or engine='masked'"
        )
    return engine


def learning_rate_scales(model: spec.Model, optimizer: Optimizer) -> dict[str, float]:
    """Name -> decay ** (num_layers + 1 - layer id); 1 everywhere without layer decay."""
    table = spec.parameters(model)
    decay, rule = optimizer.layer_decay, optimizer.layer_decay_type
    if decay is None:
        return dict.fromkeys(table, 1.0)
    last = spec.num_layers(model, rule) + 1
    return {name: decay ** (last - param.layer_ids[rule]) for name, param in table.items()}


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


def make_writable(folder: str) -> None:
    """Make a folder for compiled programs; BackendError if that fails, or if no file can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it cannot be written"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise BackendError(f"compilation cache {folder}: {reason}; give another folder, or off")
