"""The formats, one small table each, in the order in which `recognise` tries them."""

from collections.abc import Mapping

from convert import naming
from convert.errors import ConvertError, listed
from convert.formats import dinov3
from convert.formats.flax import FLAX, NNX
from convert.formats.huggingface import HF
from convert.formats.mmpretrain import MMPRETRAIN
from convert.formats.official import BSP36, DENSE, SPARSE
from convert.formats.ours import OURS
from convert.formats.spark import SPARK
from convert.formats.timm import CLIP, FEATURES, TIMM
from convert.formats.viscy import STACKS, VISCY
from convert.rules import Format

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        *(FLAX, NNX, SPARSE, SPARK, HF, dinov3.HF, CLIP, VISCY, STACKS, TIMM, FEATURES),
        *(MMPRETRAIN, dinov3.DINOV3, OURS, DENSE, BSP36),
    )
}


def named(name: str) -> Format:
    """The format of that name; ConvertError with the known ones otherwise."""
    if name not in FORMATS:
        raise ConvertError(f"format: {name!r} is unknown; choose one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Format:
    """The first format whose sign is among the names; ConvertError shows the names otherwise."""
    for format in FORMATS.values():
        if any(format.signed(name, shape) for name, shape in shapes.items()):
            return format
    raise ConvertError(f"no known format has these keys: {listed(shapes, 5) or '(none)'}; {_remedy(shapes)}")


def _remedy(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """How to have names read that no format has: by the prefix under which one has them, if any."""
    for format in FORMATS.values():
        for name, shape in shapes.items():
            for prefix, rest in naming.cuts(name):
                if format.signed(rest, shape):
                    return f"under {prefix} there is the {format.name} format: convert it with --prefix {prefix}"
    return "convert it with --from FORMAT if you know its format"
