"""The cluster of a run in one process with one device."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SingleProcess:
    """See `backends.protocol.Cluster`: every collective is a no-op."""

    rank: int = 0
    processes: int = 1
    devices: int = 1

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The values themselves, in float64."""
        return np.asarray(values, np.float64)

    def shutdown(self) -> None:
        """No process group to leave."""
