"""Files that grow by whole pieces, whatever becomes of the disk."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Appended:
    """A file to which pieces are appended whole: what does not fit now is written with the next one.

    A full disk costs one line for the user and no run.
    """

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file, self.say = file, say
        self.stream = file.open("ab", buffering=0)
        self.size = self.stream.tell()
        self.waiting = b""

    def write(self, piece: bytes) -> None:
        """Append a piece, after those that are waiting."""
        told = bool(self.waiting)
        self.waiting += piece
        try:
            rest = memoryview(self.waiting)
            while rest:
                rest = rest[self.stream.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self.stream.truncate(self.size)  # no piece is left half
            if not told:
                self.say(f"{self.file}: cannot be written: {error.strerror}; kept in memory until it can")
        else:
            self.size += len(self.waiting)
            self.waiting = b""

    def close(self) -> None:
        """Write what is waiting, if there is room by now."""
        if self.waiting:
            self.write(b"")
        self.stream.close()
