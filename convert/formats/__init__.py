"""The formats, one small table each, in the order in which `recognise` tries them."""

import re
from collections.abc import Mapping

from convert.errors import ConvertError, listed
from convert.formats.flax import FLAX
from convert.formats.huggingface import HF
from convert.formats.mmpretrain import MMPRETRAIN
from convert.formats.official import DENSE, SPARSE
from convert.formats.ours import OURS
from convert.formats.timm import TIMM
from convert.rules import Format

FORMATS: dict[str, Format] = {format.name: format for format in (FLAX, SPARSE, HF, TIMM, MMPRETRAIN, OURS, DENSE)}


def named(name: str) -> Format:
    """The format of that name; ConvertError with the known ones otherwise."""
    if name not in FORMATS:
        raise ConvertError(f"format: {name!r} is unknown; choose one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Format:
    """The first format whose sign is among the names; ConvertError shows the names otherwise."""
    for format in FORMATS.values():
        ranks = [len(shape) for name, shape in shapes.items() if re.fullmatch(format.sign, name)]
        if ranks and format.sign_rank in (None, ranks[0]):
            return format
    raise ConvertError(f"no known format has these keys: {listed(shapes, 5) or '(none)'}; name its format with --from")
