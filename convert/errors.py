"""The error of a user whose file, format or wish cannot be converted."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path


class ConvertError(ValueError):
    """One line that says which file and key is wrong, what it was, what was expected, what to do."""


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Around a foreign parser, which may raise anything on a damaged file: a ConvertError instead."""
    try:
        yield
    except ConvertError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConvertError(f"{path}: damaged, or not what it seems ({kind}): {reason}") from error


def listed(names: Iterable[str], limit: int = 10) -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    every = list(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
