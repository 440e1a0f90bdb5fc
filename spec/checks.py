"""What a model may be: each check returns the accepted value or raises a SpecError of one line."""

import difflib
from collections.abc import Iterable
from typing import Any

from spec.errors import SpecError
from spec.geometry import count_visible


def known_fields(fields: Iterable[str], known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}"
            raise SpecError(f"{name}: no such field of a model; {hint}")


def whole(name: str, value: Any, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise SpecError(f"{name}: {value!r} is not a whole number of at least {at_least}")
    return value


def rate(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise SpecError(f"{name}: {value!r} is not a number from 0 up to, not including, 1")
    return float(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise SpecError(f"{name}: {value!r} is unknown; choose {' or '.join(map(repr, choices))}")
    return value


def stages(depths: Any, dims: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if depths is None or dims is None:
        raise SpecError("depths, dims: give both, or a preset such as 'convnextv2_atto'")
    depths, dims = _tuple("depths", depths), _tuple("dims", dims)
    if len(depths) != len(dims) or not depths:
        raise SpecError(f"depths {depths} and dims {dims}: give one of each a stage, and at least one stage")
    for stage, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        whole(f"depths[{stage}]", depth, at_least=1)
        whole(f"dims[{stage}]", dim, at_least=1)
    return depths, dims


def _tuple(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SpecError(f"{name}: {value!r} is not a sequence of whole numbers, one a stage")
    return tuple(value)


def stem_stride(stride: Any, patch_size: Any, stages: int) -> int:
    """The stem's stride from itself, from the patch size, or from both when they agree; 4 by default."""
    last = 2 ** (stages - 1)
    if stride is None and patch_size is None:
        return 4
    if patch_size is None:
        return whole("stem_stride", stride, at_least=1)
    whole("patch_size", patch_size, at_least=1)
    if patch_size % last:
        raise SpecError(f"patch_size: {patch_size} is no multiple of {last}, the stride of {stages} stages past the stem")
    derived = int(patch_size // last)
    if stride not in (None, derived):
        raise SpecError(
            f"patch_size {patch_size} and stem_stride {stride}: with {stages} stages a patch is {last} * stem_stride"
            f" pixels; give stem_stride={derived} or leave one out"
        )
    return derived


def image_size(size: Any, patch: int) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else _tuple("image_size", size)
    if len(pair) != 2:
        raise SpecError(f"image_size: {size!r} is neither a side nor (height, width)")
    for name, side in zip(("height", "width"), pair, strict=True):
        whole(f"image_size {name}", side, at_least=1)
        if side % patch:
            below = side // patch * patch
            near = f"{below} or {below + patch}" if below else f"{patch}"
            raise SpecError(f"image_size: the {name} {side} is no multiple of the patch, {patch} pixels; try {near}")
    return pair[0], pair[1]


def mask_ratio(ratio: float, grid: tuple[int, int]) -> None:
    total = grid[0] * grid[1]
    visible = count_visible(grid, ratio) if 0 < ratio < 1 else 0
    if not 0 < visible < total:
        kept = f"leaves {visible} of {total} patches visible" if 0 < ratio < 1 else "is not between 0 and 1"
        raise SpecError(f"mask_ratio: {ratio} {kept}; at least one must stay and one must go (the paper uses 0.6)")
