"""Metrics of the updates since the last line of the log."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

REMEMBERED = 100  # number of updates in a NaN report


class Update(NamedTuple):
    """An update that the device has finished."""

    step: int
    lr: float
    loss: float
    grad_norm: float
    broken: list[str]  # a line for each image that could not be read and was replaced by another
    images: int  # summed over devices

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Metrics:
    """Running averages since the last log line.

    `add` waits for the previous update, so the host is at most one update ahead of the device: the
    next batch is requested shortly before the device needs it, and a loss that is not finite is
    seen one update later.
    """

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.running: Callable[[], Update] | None = None
        self.recent: deque[Update] = deque(maxlen=REMEMBERED)
        self.updates: list[Update] = []
        self.waited = 0.0
        self.began = time.perf_counter()

    def reset(self) -> None:
        """Forget what was added since the last line, and restart the clock."""
        self.updates, self.waited, self.began = [], 0.0, time.perf_counter()

    def add(self, step: int, lr: float, outcome: Mapping[str, Any], broken: list[str], images: int) -> None:
        """Add an update, which the device may still be computing. images: summed over devices."""
        self.wait()
        self.running = lambda: Update(step, lr, float(outcome["loss"]), float(outcome["grad_norm"]), broken, images)

    def wait(self) -> None:
        """Wait for the running update."""
        if self.running:
            update = self.running()
            self.updates.append(update)
            self.recent.append(update)
            self.running = None

    @property
    def first_not_finite(self) -> Update | None:
        """The first finished update whose loss or gradient norm is NaN or inf."""
        return next((update for update in self.recent if not update.is_finite), None)

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time in this context as waiting for data."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - began

    def read(self) -> dict[str, float]:
        """Averages over the updates since the last call, once the device has finished them; {} if there are none.

        images_per_s (all devices) and images_per_s_device (one); data_wait, the fraction of the time
        spent waiting for batches; memory_mb, the peak of this process; skipped, the broken images.
        """
        self.wait()
        took = time.perf_counter() - self.began
        if not self.updates:
            return {}
        rate = sum(update.images for update in self.updates) / took
        values = {
            "loss": float(np.mean([update.loss for update in self.updates])),
            "grad_norm": float(np.mean([update.grad_norm for update in self.updates])),
            "images_per_s": rate,
            "images_per_s_device": rate / self.devices,
            "data_wait": self.waited / took,
            "memory_mb": peak_memory(),
            "skipped": float(sum(len(update.broken) for update in self.updates)),
        }
        self.reset()
        return values


def peak_memory() -> float:
    """Peak memory of this process in MB; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
