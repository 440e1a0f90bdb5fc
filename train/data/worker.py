"""A process that makes batches, and another in its place when it dies."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from train.data.shared import receive, send
from train.errors import TrainError

T = TypeVar("T")
TRIES = 3
"""Workers that may die over one batch."""

DEAF = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
TAKEN = b"+"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Worker(Generic[T]):
    """make(n) for each n of `numbers`, in order, in a process of its own.

    A batch is a pure function of its number, so what a dead worker had made is made again, bit
    for bit. TrainError when a batch has cost the last of a few workers its life.
    """

    def __init__(self, make: Callable[[int], T], numbers: range, say: Callable[[str], None]) -> None:
        self.make, self.numbers, self.say = make, numbers, say
        self.deaths = 0
        self._start()

    def ready(self, seconds: float) -> bool:
        """Whether take() need not wait, known after so many seconds at most."""
        if not self.reader.poll(seconds):
            return False
        try:
            self.received = receive(self.reader)
        except (EOFError, OSError):
            self._replace()
            return False
        return True

    def take(self) -> T:
        """The next batch, once it is ready; raises what making it raised."""
        made, error = self.received
        if error is not None:
            raise error
        with suppress(OSError):  # it may have ended since
            self.reader.send_bytes(TAKEN)
        self.numbers, self.deaths = self.numbers[1:], 0
        return made

    def end(self) -> None:
        """Kill the process, whatever it is doing; one that hangs in a dead disk is not waited for."""
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
        self.say(f"{died}; another one makes it")
        self._start()


def _serve(make: Callable[[int], T], numbers: range, writer: Connection, parent: int) -> None:
    """In a worker: deaf to the signals that schedulers send to every process; ends with its parent."""
    for name in DEAF:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _die_with(parent)
    for number in numbers:
        made, error = _attempt(make, number)
        try:
            if number != numbers.start:
                writer.recv_bytes()  # the one before is taken
            send(writer, (made, error))
        except (EOFError, ConnectionError):  # the trainer is gone
            return
        if error is not None:
            return


def _attempt(make: Callable[[int], T], number: int) -> tuple[T | None, Exception | None]:
    try:
        return make(number), None
    except Exception as error:
        return None, error


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, where it can; else a closed pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)
