"""The processes of a run, and how they find each other."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from backends import launch
from backends.cluster import SingleProcess
from backends.protocol import BackendError, Cluster
from backends.torch import api

PATIENCE = timedelta(minutes=10)
"""How long a sum waits for the other processes, one of which may be writing a checkpoint."""

MEETING = timedelta(minutes=5)
"""How long the others look for process 0, whose machine may be slower to start."""


@dataclass(frozen=True)
class Processes:
    """See `backends.protocol.Cluster`; a process drives all its devices."""

    rank: int
    processes: int
    hosts: dist.ProcessGroup  # the same processes, meeting on the host: no device waits for a sum there
    devices: int = 1  # a process is started for each

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of everybody's values, in float64, the same for everybody."""
        summed = torch.tensor(values, dtype=torch.float64)
        with distributed_errors():
            dist.all_reduce(summed, group=self.hosts)
        return summed.numpy()

    def shutdown(self) -> None:
        """Wait for everybody, so that nobody misses one who is done, and part."""
        with distributed_errors():
            dist.barrier(group=self.hosts)
        dist.destroy_process_group()


def init_cluster(device: str | None = None) -> Cluster:
    """Meet the processes that the environment tells of, or be alone; BackendError where that fails.

    Each process takes one device: the one of its number on its machine, for which "cuda" then stands.
    """
    place = launch.place(os.environ)
    if place is None:
        return SingleProcess()
    own = _device(device, place)
    try:
        _look_for_first(place)
        dist.init_process_group(
            "nccl" if own.type == "cuda" else "gloo",
            init_method=f"tcp://{place.address}:{place.port}",
            rank=place.rank,
            world_size=place.processes,
            timeout=PATIENCE,
            device_id=own if own.type == "cuda" else None,
        )
        hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendError(
            f"process {place.rank} of {place.processes} did not meet the others at {place.address}:{place.port}"
            f" ({reason}); set MASTER_ADDR and MASTER_PORT to what all machines reach"
        ) from None
    return Processes(place.rank, place.processes, hosts)


@contextmanager
def distributed_errors() -> Iterator[None]:
    """What needs the other processes: BackendError where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        if not isinstance(error, dist.DistError) and "gloo" not in line:
            raise
        reason = re.sub(r"^\[\S*\] ", "", line).partition(". ")[0]  # without the place in C++
        raise BackendError(
            f"another process is gone ({reason}); see what it said itself. The same command goes on from the newest"
            " checkpoint"
        ) from None


def _look_for_first(place: launch.Place) -> None:
    """Wait until process 0 listens; OSError when it does not in time (torch would try for several times as long)."""
    deadline = time.monotonic() + MEETING.total_seconds()
    while place.rank:
        try:
            return socket.create_connection((place.address, place.port), timeout=5).close()
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _device(asked: str | None, place: launch.Place) -> torch.device:
    """The device of a process; for CUDA the current one from here on, before anything is put on another."""
    kind, _, index = (asked or api.best()).partition(":")
    if kind != "cuda":
        return api.place(kind)
    if index:
        raise BackendError(f"device: {asked!r} is one, and {place.processes} processes want one each; give 'cuda'")
    there = torch.cuda.device_count()
    own = place.local_rank if there > 1 else 0  # where there is one, the launcher shows each process its own
    if own >= there:
        raise BackendError(f"device: process {place.rank} wants GPU {own} of its machine, where torch sees {there}")
    torch.cuda.set_device(own)
    return api.place(kind)
