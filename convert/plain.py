"""Plain values: what a training script keeps beside its arrays, reduced to what JSON can hold."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import PurePath
from typing import Any

from convert.errors import ConvertError

MOST = 100_000
"""More values than any script keeps; a small pickle can expand to more than memory holds."""


def fields(values: Mapping[Any, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of those names that are there."""
    return {name: value(values[name]) for name in names if name in values}


def value(given: Any, seen: Iterator[int] | None = None) -> Any:
    """Numbers, text, lists and dicts unchanged; a Namespace as a dict, a path as text, other objects by type name."""
    seen = seen or count()
    if next(seen) > MOST:
        raise ConvertError(f"more than {MOST} values beside the tensors; no training script keeps that many")
    match given:
        case None | bool() | int() | float() | str():
            return given
        case PurePath():
            return str(given)
        case argparse.Namespace():
            return value(vars(given), seen)
        case Mapping():
            return {str(key): value(one, seen) for key, one in given.items()}
        case list() | tuple():
            return [value(one, seen) for one in given]
        case _:
            return f"<{type(given).__name__}>"
