"""How the images of a checkpoint were prepared: size, crop and normalisation, as each program records them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from convert.errors import ConvertError

IMAGENET: dict[str, tuple[float, ...]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INCEPTION: dict[str, tuple[float, ...]] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

PHOTOGRAPHS = "uint8 0..255"  # the values of images that the usual mean and std are for

RESIZE_ONLY = 384
"""From this size on, evaluation resizes without cropping, as the published script and transformers do."""

CROP_PCT = 224 / 256
"""The fraction of the image that the centre crop of an evaluation takes, unless a run says otherwise."""

NAMES = ("input_size", "mean", "std", "crop_pct")
"""The flags of a run that say how images are prepared."""

LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "input_size": (lambda value: value >= 1, "pixels"),
    "mean": (lambda value: True, "numbers"),
    "std": (lambda value: value > 0, "numbers above 0"),
    "crop_pct": (lambda value: 0 < value <= 1, "a number above 0, at most 1"),
}
"""Flag -> whether a number can be one of its values, and that in words."""


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
    return {name: _checked(name, found[name]) for name in NAMES if found.get(name) not in (None, [], ())}


def _checked(name: str, value: Any) -> Any:
    """A flag's value, of mean and std one number or several; ConvertError unless evaluation can use it."""
    one = isinstance(value, int | float)
    many = tuple(value) if isinstance(value, list | tuple) else (value,)
    known, what = LIMITS[name]
    if (name == "crop_pct" and not one) or not all(_is_number(item) and known(item) for item in many):
        raise ConvertError(f"the checkpoint records {name} {value!r}, not {what}; correct it there")
    return value if name == "crop_pct" else many


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
