"""Shared by the command lines: one-line errors, suggestions and tables. Standard library only."""

import argparse
import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

MISTAKE, CLOSED_PIPE = 2, 141
"""Exit statuses: after a user's mistake; after the reader of a pipe closed it (128 + SIGPIPE, as of other programs)."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations, whose mistakes are one line on stderr and status 2."""

    def __init__(self, prog: str | None = None, *, allow_abbrev: bool = False, **options: object) -> None:
        super().__init__(prog, allow_abbrev=allow_abbrev, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the message, with the nearest known argument where one was unknown, and exit."""
        unknown = re.match(r"unrecognized arguments: (-[^\s=]+)|argument .*: invalid choice: '([^']*)'", message)
        hint = nearest(unknown[1] or unknown[2], _arguments(self)) if unknown else ""
        remedy = hint or f"{self.prog} --help lists the arguments"
        raise SystemExit(fail(self.prog.removeprefix("python -m "), f"{message}; {remedy}"))


def fail(program: str, message: object) -> int:
    """Print `program: message` as one line on stderr; returns the exit status 2."""
    print(f"{program}: {one_line(str(message))}", file=sys.stderr)
    return MISTAKE


def one_line(text: str) -> str:
    r"""The text with control characters escaped, so that no name in it can break the line.

    >>> print(one_line("a key\nof two lines"))
    a key\nof two lines
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def escape_unprintable() -> None:
    """Let stdout and stderr print any name: what the terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def closing_pipe() -> Iterator[None]:
    """Exit quietly where the reader of stdout has closed it, as `| head` does. Decorates a `main`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        raise SystemExit(CLOSED_PIPE) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...?" if a known name is close, else "".

    >>> nearest("--epoch", ["--epochs", "--lr"])
    "did you mean '--epochs'?"
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def table(rows: Sequence[Sequence[str]], align: str = "<", *, heading: bool = False) -> str:
    """Rows of cells in columns, two spaces apart.

    align has a "<" or ">" for each column; its last repeats. heading rules a line under the first row.

    >>> print(table([("part", "values"), ("stem", "7"), ("head", "1,000")], "<>", heading=True))
    part  values
    ------------
    stem       7
    head   1,000
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip(align.ljust(len(widths), align[-1]), widths, strict=True)]
    lines = ["  ".join(formats).format(*row) for row in rows]
    if heading:
        lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a table in Markdown; the first row is its head.

    >>> print(markdown([("part", "values"), ("stem", "7")]))
    | part | values |
    | --- | --- |
    | stem | 7 |
    """
    head, *body = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags and sub-commands of a parser, those of its sub-commands included."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for name, command in action.choices.items():
                yield name
                yield from _arguments(command)
        elif action.choices:
            yield from map(str, action.choices)
