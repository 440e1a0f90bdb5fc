"""The lock on a run directory: two processes that write to one would destroy each other's files."""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from train.errors import TrainError

NAME = ".lock"
PATIENCE = 2.0  # seconds to wait for a holder that is just ending

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a disk that has no locks."""

HELD = (errno.EAGAIN, errno.EACCES)  # errors of a lock that another process holds


@contextmanager
def locked(run_dir: Path, say: Callable[[str], None], flag: str = "--output_dir") -> Iterator[None]:
    """Hold the lock in this context; TrainError, which names the holder, if another process has it.

    The system releases the lock when its process ends, however it ends, and a child process does not
    inherit it. It is a POSIX record lock, which NFS and most cluster file systems share between machines;
    a disk without locks costs one line. OSError if the file cannot be written or locked. flag: what names the folder.
    """
    with (run_dir / NAME).open("a+", encoding="utf-8") as file:
        _acquire(file, run_dir, say, flag)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _acquire(file: IO[str], run_dir: Path, say: Callable[[str], None], flag: str) -> None:
    """Lock the file, waiting PATIENCE seconds at most."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _lock(file)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return say(f"note: the disk of {run_dir} has no locks; start no other run in this folder")
            if error.errno not in HELD:
                raise
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise TrainError(
                    f"{flag} {run_dir}: in use by {holder}; wait for its end, or give another {flag}"
                ) from None
            time.sleep(0.1)


def _lock(file: IO[str]) -> None:
    """OSError if another process has the lock. On Windows nothing is locked."""
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOSYS, "no locks") from None
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
