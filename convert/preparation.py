"""How the images of a checkpoint were prepared: size, crop and normalisation, as each program records them."""

from collections.abc import Mapping
from typing import Any

IMAGENET: dict[str, tuple[float, ...]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INCEPTION: dict[str, tuple[float, ...]] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

PHOTOGRAPHS = "uint8 0..255"
"""The values of images that the usual mean and std are for."""

RESIZE_ONLY = 384
"""From this size on, evaluation resizes without cropping, as the published script and transformers do."""

CROP_PCT = 224 / 256
"""The fraction of the image that the centre crop of an evaluation takes, unless a run says otherwise."""

NAMES = ("input_size", "mean", "std", "crop_pct")
"""The flags of a run that say how images are prepared."""


def recorded(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Flag of NAMES -> value, of those that a checkpoint's metadata records.

    meta holds "config" of a run of ours, "args" of the released scripts, or "images" of a hub folder.
    """
    config, args = meta.get("config"), meta.get("args")
    if isinstance(config, Mapping):
        found = {name: config.get(name) for name in NAMES}
    elif isinstance(args, Mapping):
        found = {name: args.get(name) for name in ("input_size", "crop_pct")}
        default = args.get("imagenet_default_mean_and_std")
        found |= {} if default is None else IMAGENET if default else INCEPTION
    else:
        found = dict(meta.get("images", {}))
    if isinstance(found.get("input_size"), int):
        found["input_size"] = (found["input_size"],)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value}


def values(meta: Mapping[str, Any]) -> str:
    """The type and range of the values of a checkpoint's images, as its run recorded them."""
    return str(meta.get("values", PHOTOGRAPHS))


def unit(meta: Mapping[str, Any]) -> str:
    """The unit of mean and std, in words."""
    found = values(meta)
    of = "" if found == PHOTOGRAPHS else f" of {found}"
    return f"in units of 0..1{of}" if " 0.." in found else f"in the unit of the values, {found}"


def image_size(found: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of what `recorded` found; None if it is unknown."""
    size = found.get("input_size")
    return (size[0], size[-1]) if size else None
