"""The processes of a run, and how they connect."""

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
"""Timeout of a collective; another process may be writing a checkpoint."""

MEETING = timedelta(minutes=5)
"""Timeout for reaching process 0, whose machine may start later."""


@dataclass(frozen=True)
class Processes:
    """See `backends.protocol.Cluster`; a process drives all its devices."""

    rank: int
    processes: int
    hosts: dist.ProcessGroup  # gloo group on the host: its sums make no device wait
    devices: int = 1  # one process per device

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of the values over all processes, in float64."""
        summed = torch.tensor(values, dtype=torch.float64)
        with distributed_errors():
            dist.all_reduce(summed, group=self.hosts)
        return summed.numpy()

    def shutdown(self) -> None:
        """Wait for all processes, then destroy the process group."""
        with distributed_errors():
            dist.barrier(group=self.hosts)
        dist.destroy_process_group()


def init_cluster(device: str | None = None) -> Cluster:
    """Join the processes that the environment describes, if there are several; BackendError if that fails.

    Each process uses the device of its local rank; "cuda" then means that device.
    """
    place = launch.place(os.environ)
    if place is None:
        return SingleProcess()
    own = _device(device, place)
    try:
        _wait_for_first(place)
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
            f"process {place.rank} of {place.processes} could not connect to {place.address}:{place.port}"
            f" ({reason}); set MASTER_ADDR and MASTER_PORT to an address that all machines reach"
        ) from None
    return Processes(place.rank, place.processes, hosts)


@contextmanager
def distributed_errors() -> Iterator[None]:
    """Context for collectives: BackendError if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        if not isinstance(error, dist.DistError) and "gloo" not in line:
            raise
        reason = re.sub(r"^\[\S*\] ", "", line).partition(". ")[0]  # without the C++ location
        raise BackendError(
            f"another process is gone ({reason}); see its own output. The same command resumes from the newest"
            " checkpoint"
        ) from None


def _wait_for_first(place: launch.Place) -> None:
    """Wait until process 0 listens; OSError after the timeout (torch's own is several times as long)."""
    deadline = time.monotonic() + MEETING.total_seconds()
    while place.rank:
        try:
            return socket.create_connection((place.address, place.port), timeout=5).close()
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _device(asked: str | None, place: launch.Place) -> torch.device:
    """The device of a process. For CUDA, also make it the current device, before any allocation."""
    kind, _, index = (asked or api.best()).partition(":")
    if kind != "cuda":
        return api.place(kind)
    if index:
        raise BackendError(f"device: {asked!r} is one device for {place.processes} processes; give 'cuda'")
    there = torch.cuda.device_count()
    own = place.local_rank if there > 1 else 0  # where there is one, the launcher shows each process its own
    if own >= there:
        raise BackendError(f"device: process {place.rank} needs GPU {own} of its machine, but torch sees {there}")
    torch.cuda.set_device(own)
    return api.place(kind)
