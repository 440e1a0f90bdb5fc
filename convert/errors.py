"""The error of a user whose file, format or wish cannot be converted."""

from collections.abc import Iterable


class ConvertError(ValueError):
    """One line that says which file and key is wrong, what it was, what was expected, what to do."""


def listed(names: Iterable[str], limit: int = 10) -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    every = list(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
