"""The formats, each one small table; in the order in which they are tried on unknown names."""

import re
from collections.abc import Iterable

from convert.errors import ConvertError, listed
from convert.formats.flax import FLAX
from convert.formats.huggingface import HF
from convert.formats.mmpretrain import MMPRETRAIN
from convert.formats.official import DENSE, SPARSE
from convert.formats.ours import OURS
from convert.formats.timm import TIMM
from convert.rules import Format

FORMATS: dict[str, Format] = {format.name: format for format in (FLAX, SPARSE, HF, TIMM, MMPRETRAIN, DENSE, OURS)}


def named(name: str) -> Format:
    """The format of that name; ConvertError with the known ones otherwise."""
    if name not in FORMATS:
        raise ConvertError(f"format: {name!r} is unknown; choose one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def recognise(names: Iterable[str]) -> Format:
    """The first format of which a name is the sign; ConvertError shows the names otherwise."""
    every = list(names)
    for format in FORMATS.values():
        if any(re.fullmatch(format.sign, name) for name in every):
            return format
    raise ConvertError(f"no known format has these keys: {listed(every, 5) or '(none)'}; --from says which one it is")
