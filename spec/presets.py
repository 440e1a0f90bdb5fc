"""The sizes of ConvNeXt V2 (its paper, table 9) and V1 (its paper, section 3), and those that timm added."""

from typing import TypedDict

from spec.errors import SpecError
from spec.steps import BlockKind


class Size(TypedDict):
    """Blocks per stage, channels per stage, and the kind of block."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    block: BlockKind


def _size(depths: tuple[int, ...], width: int, block: BlockKind = "v2") -> Size:
    return {"depths": depths, "dims": tuple(width * 2**stage for stage in range(len(depths))), "block": block}


PRESETS: dict[str, Size] = {
    "convnextv2_atto": _size((2, 2, 6, 2), 40),
    "convnextv2_femto": _size((2, 2, 6, 2), 48),
    "convnextv2_pico": _size((2, 2, 6, 2), 64),
    "convnextv2_nano": _size((2, 2, 8, 2), 80),
    "convnextv2_tiny": _size((3, 3, 9, 3), 96),
    "convnextv2_small": _size((3, 3, 27, 3), 96),  # timm only: no released weights
    "convnextv2_base": _size((3, 3, 27, 3), 128),
    "convnextv2_large": _size((3, 3, 27, 3), 192),
    "convnextv2_huge": _size((3, 3, 27, 3), 352),
    "convnext_atto": _size((2, 2, 6, 2), 40, "v1"),  # timm, as those up to nano
    "convnext_femto": _size((2, 2, 6, 2), 48, "v1"),
    "convnext_pico": _size((2, 2, 6, 2), 64, "v1"),
    "convnext_nano": _size((2, 2, 8, 2), 80, "v1"),
    "convnext_tiny": _size((3, 3, 9, 3), 96, "v1"),
    "convnext_small": _size((3, 3, 27, 3), 96, "v1"),
    "convnext_base": _size((3, 3, 27, 3), 128, "v1"),
    "convnext_large": _size((3, 3, 27, 3), 192, "v1"),
    "convnext_xlarge": _size((3, 3, 27, 3), 256, "v1"),
}


def size_of(preset: str) -> Size:
    """The depths and dims of a preset; SpecError with the known names otherwise."""
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SpecError(f"preset: {preset!r} is unknown; choose one of {', '.join(PRESETS)}, or give depths and dims")
    return PRESETS[preset]
