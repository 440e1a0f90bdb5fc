"""Damaged, lying and malicious files, made deterministically: name -> how to write one. Each must be refused."""

from tests.convert.hostile import archives, arrays, files, folders, headers, pickles, trees
from tests.convert.hostile.base import Make

__all__ = ["Make", "cases"]


def cases() -> dict[str, Make]:
    """All of them."""
    every = [case for part in (arrays, pickles, archives, headers, trees, folders, files) for case in part.cases()]
    found = dict(every)
    assert len(found) == len(every), "two cases of one name"
    return found
