"""Print file and class names safely, whatever bytes or characters they hold."""

import sys
from collections.abc import Iterator, Sequence

SHOWN = 3  # names that are listed of many


def printable(text: str) -> str:
    r"""The text as one line that the terminal can show; everything else becomes an escape such as \xe9 or \n.

    Names of files may hold bytes that are not UTF-8 (Python keeps them as surrogates), and a
    terminal may know ASCII only. Neither may end a run in a UnicodeEncodeError.
    """
    text = text.encode("utf-8", "surrogatepass" if _has_other_surrogates(text) else "surrogateescape").decode(
        "utf-8", "backslashreplace"
    )
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def portable(text: str) -> str:
    r"""The text for a UTF-8 file: bytes of names that are not UTF-8 become escapes such as \udce9."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _has_other_surrogates(text: str) -> bool:
    """Whether it holds surrogates that do not stand for a byte."""
    return any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text)


def counted(one: str, many: str, names: Sequence[str]) -> Iterator[str]:
    """A count and the first names, if there are any: "2 folders without images (a, b)"."""
    if names:
        shown = ", ".join([*map(printable, names[:SHOWN]), *["..."][: len(names) > SHOWN]])
        yield f"{len(names):,} {one if len(names) == 1 else many} ({shown})"
