"""Signals that ask a run to end: a scheduler's warning, or a kill."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")
"""What SLURM, Kubernetes and their like send before they kill."""

ONE = 1.0
"""Seconds within which a repeated signal is the same one, passed on by a launcher too."""


class Signals:
    """While it is entered, the first signal is noted, for the run to end by; a second SIGTERM ends the process.

    SIGTERM after SIGUSR1 or SIGUSR2 is no second one: a time limit announces itself by the one and
    comes by the other, while the state may still be on its way to the disk. Handlers are installed
    in the main thread only, where Python runs them, and those before them are put back at the end.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.before: dict[int, Any] = {}
        self.terminated = 0.0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
            self.before = {number: signal.signal(number, self._noted) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _noted(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number).name
        if number == signal.SIGTERM:
            if self.terminated and time.monotonic() - self.terminated > ONE:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.terminated = self.terminated or time.monotonic()
