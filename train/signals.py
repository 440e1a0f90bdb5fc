"""Signals that ask a run to stop: a scheduler's warning, or a kill."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")
"""What SLURM, Kubernetes and others send before they kill a process."""

ONE = 1.0
"""Seconds within which a repeated signal counts as the same one: launchers forward what the process got itself."""


class Signals:
    """Context that notes the first signal, so that the run can stop; a second SIGTERM ends the process at once.

    SIGTERM after SIGUSR1 or SIGUSR2 is not a second one: a time limit is announced by the one and
    enforced by the other, while the state may still be in the process of being saved. Handlers are installed only in
    the main thread, where Python runs them, and the previous ones are restored at the end.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.previous: dict[int, Any] = {}
        self.terminated = 0.0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
            self.previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number).name
        if number == signal.SIGTERM:
            if self.terminated and time.monotonic() - self.terminated > ONE:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.terminated = self.terminated or time.monotonic()
