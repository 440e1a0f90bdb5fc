"""The error for a file, format or request that cannot be converted."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from spec.console import one_line


class ConvertError(ValueError):
    """One line that says which file and key is wrong, what it was, what was expected, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises on a damaged file into a ConvertError."""
    try:
        yield
    except ConvertError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConvertError(f"{path}: damaged, or not a {kind} file: {reason}") from error


def listed(names: Iterable[str], limit: int = 10) -> str:
    """The first names, and how many more there are: "a, b and 3 more".

    >>> listed("abcde", 2)
    'a, b and 3 more'
    """
    every = list(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
