"""Checks of a model's fields: each returns the accepted value or raises a SpecError of one line."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from spec.console import nearest
from spec.errors import SpecError
from spec.geometry import Rounding, count_visible, ratio_for


def known_fields(fields: Iterable[str], known: tuple[str, ...]) -> None:
    """Refuse a field that no model of this kind has, with the nearest one that it does have."""
    for name in fields:
        if name not in known:
            hint = nearest(name, known) or f"the fields are {', '.join(known)}"
            raise SpecError(f"{name}: no such field of this model; {hint}")


def whole(name: str, value: Any, at_least: int) -> int:
    """An int, from any integer type; SpecError for True, 4.0 and "4"."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise SpecError(f"{name}: {value!r} is not a whole number of at least {at_least}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A float, from any real type; SpecError for True and "0.5"."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SpecError(f"{name}: {value!r} is not a number")
    return float(value)


def positive(name: str, value: Any) -> float:
    """A float above 0."""
    if not 0 < number(name, value) < float("inf"):
        raise SpecError(f"{name}: {value!r} is not above 0")
    return float(value)


def rate(name: str, value: Any) -> float:
    """A probability from 0 up to, not including, 1."""
    if not 0 <= number(name, value) < 1:
        raise SpecError(f"{name}: {value!r} is not a number from 0 up to, not including, 1")
    return float(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of a few names."""
    if value not in choices:
        raise SpecError(f"{name}: {value!r} is unknown; choose {' or '.join(map(repr, choices))}")
    return value


def grn_scope(value: Any, block: str) -> Any:
    """What GRN sums over; SpecError for a scope without a GRN to use it."""
    one_of("grn_scope", value, ("image", "batch", "grid"))
    if block == "v1" and value != "image":
        raise SpecError(f"grn_scope: {value!r}, and blocks of kind 'v1' have no GRN; leave it out")
    return value


def head_init_scale(value: Any, classes: int) -> float:
    """A factor from 0 to 1; SpecError for one without a head to apply it to."""
    if not 0 <= number("head_init_scale", value) <= 1:
        raise SpecError(f"head_init_scale: {value!r} is not a number from 0 to 1")
    if value != 1 and not classes:
        raise SpecError(f"head_init_scale: {value!r}, and num_classes 0 has no head; leave it out")
    return float(value)


def stages(depths: Any, dims: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and channels of each stage; both have the same length."""
    if depths is None or dims is None:
        raise SpecError("depths, dims: give both, or a preset such as 'convnextv2_atto'")
    depths, dims = _whole_numbers("depths", depths), _whole_numbers("dims", dims)
    if len(depths) != len(dims) or not depths:
        raise SpecError(f"depths {depths} and dims {dims}: give one of each per stage, at least one stage")
    return depths, dims


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SpecError(f"{name}: {values!r} is not a sequence of whole numbers, one per stage")
    return tuple(whole(f"{name}[{stage}]", value, at_least=1) for stage, value in enumerate(values))


def chosen_stages(values: Any, count: int) -> tuple[int, ...]:
    """Numbers of stages, each below `count` and given once; None: all."""
    if values is None:
        return tuple(range(count))
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SpecError(f"stages: {values!r} is not a sequence of stages, such as ({count - 1},)")
    chosen = tuple(values)
    known = all(
        isinstance(stage, Integral) and not isinstance(stage, bool) and int(stage) in range(count) for stage in chosen
    )
    if not chosen or not known or len(set(chosen)) < len(chosen):
        raise SpecError(f"stages: {chosen} is not a choice from 0 to {count - 1}, each once")
    return tuple(map(int, chosen))


def stem_stride(stride: Any, patch_size: Any, stages: int) -> int:
    """The stem's stride from itself, from the patch size, or from both when they agree; 4 by default."""
    last = 2 ** (stages - 1)
    if stride is None and patch_size is None:
        return 4
    if patch_size is None:
        return whole("stem_stride", stride, at_least=1)
    patch = whole("patch_size", patch_size, at_least=1)
    if patch % last:
        raise SpecError(
            f"patch_size: {patch} is no multiple of {last}, the stride of {stages} stages past the stem;"
            f" try {max(patch // last, 1) * last}"
        )
    derived = patch // last
    if stride is not None and whole("stem_stride", stride, at_least=1) != derived:
        raise SpecError(
            f"patch_size {patch} and stem_stride {stride}: with {stages} stages a patch is {last} * stem_stride"
            f" pixels; give stem_stride={derived} or leave one out"
        )
    return derived


def image_size(size: Any, patch: int, smallest: int = 1) -> tuple[int, int]:
    """(height, width) from a pair or from one side; multiples of the patch. smallest: patches per side to suggest."""
    pair = tuple(size) if isinstance(size, Iterable) and not isinstance(size, str) else (size, size)
    if len(pair) != 2:
        raise SpecError(f"image_size: {size!r} is neither a side nor (height, width)")
    return _side("height", pair[0], patch, smallest), _side("width", pair[1], patch, smallest)


def _side(name: str, value: Any, patch: int, smallest: int) -> int:
    side = whole(f"image_size {name}", value, at_least=1)
    below = side // patch * patch
    if side != below:
        least = smallest * patch
        near = f"{below} or {below + patch}" if below >= least else f"{max(below + patch, least)}"
        raise SpecError(f"image_size: the {name} {side} is no multiple of the patch, {patch} pixels; try {near}")
    return side


def mask_ratio(value: Any, grid: tuple[int, int], rounding: Rounding = "floor") -> float:
    """A ratio that removes at least one patch of the grid and keeps at least one."""
    ratio, patches = number("mask_ratio", value), grid[0] * grid[1]
    if patches == 1:
        raise SpecError("image_size: the image is a single patch, which cannot be both seen and removed; enlarge it")
    if not 0 < ratio < 1:
        raise SpecError(f"mask_ratio: {value!r} is not between 0 and 1, both excluded; the paper uses 0.6")
    visible = count_visible(grid, ratio, rounding)
    if not 0 < visible < patches:
        nearest, side = (1, "less") if visible == 0 else (patches - 1, "more")
        remedy = f"{ratio_for(nearest, patches, rounding):.6g} or {side}"
        raise SpecError(
            f"mask_ratio: {value!r} leaves {visible} of {patches} patches visible;"
            f" at least one must stay and one must go: try {remedy}"
        )
    return ratio


def flag(name: str, value: Any) -> bool:
    """True or False; SpecError for anything else, 0 and 1 included."""
    if not isinstance(value, bool):
        raise SpecError(f"{name}: {value!r} is neither True nor False")
    return value


def norm_target(value: Any, values: int) -> bool:
    """Whether targets are normalised per patch; a patch of one value has no variance."""
    if flag("norm_target", value) and values == 1:
        raise SpecError("norm_target: a patch of one value has no variance; give norm_target=False")
    return value


def visible(value: Any, patches: int) -> int:
    """The number of visible patches, at most `patches`."""
    if whole("visible", value, at_least=1) > patches:
        raise SpecError(f"visible: {value} patches, and the image has {patches}")
    return int(value)
