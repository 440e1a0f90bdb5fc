"""The processes of a run, and how they find each other."""

from backends.protocol import Cluster
from backends.solo import Solo


def join(device: str | None = None) -> Cluster:
    """Meet the processes that the environment tells of, or be alone; BackendError where that fails."""
    return Solo()
