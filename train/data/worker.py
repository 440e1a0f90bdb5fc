"""A worker process that makes batches, restarted when it dies."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from train.data.shared_memory import receive, send
from train.errors import TrainError

T = TypeVar("T")
TRIES = 3
"""Workers that may die while making the same batch."""

IGNORED_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
TAKEN = b"+"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Worker(Generic[T]):
    """Compute make(n) for each n in `numbers`, in order, in a separate process.

    A batch is a pure function of its index, so a new worker makes the batch of a dead one again,
    bit for bit. Raises TrainError when TRIES workers have died at one batch.
    """

    def __init__(self, make: Callable[[int], T], numbers: range, log: Callable[[str], None]) -> None:
        self.make, self.numbers, self.log = make, numbers, log
        self.deaths = 0
        self._start()

    def ready(self, seconds: float) -> bool:
        """Wait up to `seconds` for the next batch; True if take() will not block."""
        if not self.reader.poll(seconds):
            return False
        try:
            self.received = receive(self.reader)
        except (EOFError, OSError):
            self._replace()
            return False
        return True

    def take(self) -> T:
        """The next batch, after ready(). Re-raises the worker's exception."""
        made, error = self.received
        if error is not None:
            raise error
        with suppress(OSError):  # the worker may have exited
            self.reader.send_bytes(TAKEN)
        self.numbers, self.deaths = self.numbers[1:], 0
        return made

    def end(self) -> None:
        """Kill the process; does not wait for one that hangs on a dead disk."""
        self.process.kill()
        self.process.join(1.0)
        self.reader.close()

    def _start(self) -> None:
        context = get_context("spawn")
        self.reader, writer = context.Pipe()
        arguments = (self.make, self.numbers, writer, os.getpid())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        writer.close()

    def _replace(self) -> None:
        self.end()
        self.deaths += 1
        died = f"--worker_type process: a data worker died (exit status {self.process.exitcode}) before it had made"
        died += f" batch {self.numbers[0]}"
        if self.deaths == TRIES:
            raise TrainError(f"{died}, as did {TRIES - 1} others; the machine may be short of memory")
        self.log(f"{died}; another one makes it")
        self._start()


def _serve(make: Callable[[int], T], numbers: range, writer: Connection, parent: int) -> None:
    """Worker body. Ignores the signals that schedulers send to all processes; ends with its parent."""
    for name in IGNORED_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _die_with(parent)
    for number in numbers:
        made, error = _attempt(make, number)
        try:
            if number != numbers.start:
                writer.recv_bytes()  # wait until the previous batch was taken
            send(writer, (made, error))
        except (EOFError, ConnectionError):  # the trainer has exited
            return
        if error is not None:
            return


def _attempt(make: Callable[[int], T], number: int) -> tuple[T | None, Exception | None]:
    try:
        return make(number), None
    except Exception as error:
        return None, error


def _die_with(parent: int) -> None:
    """On Linux, let the kernel kill this process when its parent dies; elsewhere a closed pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died already
            os._exit(1)
