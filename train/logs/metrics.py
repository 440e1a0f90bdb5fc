"""What a run measures of itself between two lines of its log."""

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

REMEMBERED = 100
"""Updates that are told of when one breaks."""


class Update(NamedTuple):
    """An update that the device has finished."""

    step: int
    lr: float
    loss: float
    grad_norm: float
    broken: list[str]  # a line for each image that another one stood in for

    @property
    def sound(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Meter:
    """The updates since it was last read, and the time they took.

    The device is one update behind at most: add() waits for the update before. So the next
    batch is asked for when the device will soon need it, time spent waiting for it is time
    lost, and a loss that is no number is seen an update later.
    """

    def __init__(self, images: int, devices: int) -> None:
        """images: of an update, on so many devices together."""
        self.images, self.devices = images, devices
        self.running: tuple[int, float, Mapping[str, Any], list[str]] | None = None
        self.recent: deque[Update] = deque(maxlen=REMEMBERED)
        self.restart()

    def add(self, step: int, lr: float, outcome: Mapping[str, Any], broken: list[str]) -> None:
        """Note an update, whose outcome may still be computing."""
        self.settle()
        self.running = step, lr, outcome, broken

    def settle(self) -> None:
        """Wait for the update before."""
        if self.running:
            step, lr, outcome, broken = self.running
            update = Update(step, lr, float(outcome["loss"]), float(outcome["grad_norm"]), broken)
            self.updates.append(update)
            self.recent.append(update)
            self.running = None

    @property
    def unsound(self) -> Update | None:
        """The first of the finished updates whose loss or gradient is no number."""
        return next((update for update in self.recent if not update.sound), None)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here is spent waiting for a batch."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - began

    def read(self) -> dict[str, float]:
        """Means over the updates since the last time, once the device has finished them; {} for none.

        images_per_s, of all devices and of one; data_wait, the share of the time spent waiting for
        a batch; memory_mb, the most that this process has had; skipped, the broken images.
        """
        self.settle()
        took = time.perf_counter() - self.began
        if not self.updates:
            return {}
        rate = self.images * len(self.updates) / took
        values = {
            "loss": float(np.mean([update.loss for update in self.updates])),
            "grad_norm": float(np.mean([update.grad_norm for update in self.updates])),
            "images_per_s": rate,
            "images_per_s_device": rate / self.devices,
            "data_wait": self.waited / took,
            "memory_mb": peak_memory(),
            "skipped": float(sum(len(update.broken) for update in self.updates)),
        }
        self.restart()
        return values

    def restart(self) -> None:
        """Forget what was added, and begin to count time anew."""
        self.updates: list[Update] = []
        self.waited = 0.0
        self.began = time.perf_counter()


def peak_memory() -> float:
    """The most memory that this process has had, in MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
