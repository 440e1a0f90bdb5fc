"""Files that grow by whole pieces, even when the disk is full."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class AppendFile:
    """A file to which pieces are appended whole. What cannot be written now is kept and written with the next piece.

    A full disk costs one line on the terminal; the run continues.
    """

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file, self.say = file, say
        self.stream = file.open("ab", buffering=0)
        self.size = self.stream.tell()
        self.pending = b""

    def write(self, piece: bytes) -> None:
        """Append a piece, after those that are pending."""
        reported = bool(self.pending)
        self.pending += piece
        try:
            rest = memoryview(self.pending)
            while rest:
                rest = rest[self.stream.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self.stream.truncate(self.size)  # no half-written piece remains
            if not reported:
                self.say(f"{self.file}: cannot be written: {error.strerror}; kept in memory until it can")
        else:
            self.size += len(self.pending)
            self.pending = b""

    def close(self) -> None:
        """Write what is pending, if there is room by now."""
        if self.pending:
            self.write(b"")
        self.stream.close()
