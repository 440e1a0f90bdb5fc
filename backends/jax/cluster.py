"""The processes of a run, and how they find each other."""

import os
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from backends import launch
from backends.cluster import SingleProcess
from backends.jax import api
from backends.protocol import BackendError, Cluster

NAMES = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""What jax reads of a process of several, beside JAX_COORDINATOR_ADDRESS."""


class Processes:
    """See `backends.protocol.Cluster`; a process drives all its devices."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh  # every device of every process, in the order of the processes
        self.rank, self.processes = jax.process_index(), jax.process_count()
        self.devices = mesh.size // self.processes

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of everybody's values, in float64, the same for everybody."""
        bits = np.ascontiguousarray(values, np.float64).view(np.uint32)  # no accelerator rounds these
        return np.asarray(multihost_utils.process_allgather(bits, tiled=False)).view(np.float64).sum(0)

    def shutdown(self) -> None:
        """Part from the others."""
        if self.processes > 1:
            jax.distributed.shutdown()


def init_cluster(device: str | None = None) -> Cluster:
    """Meet the processes that the environment tells of, or be alone; BackendError where that fails."""
    several = _meet(device)
    kind, _, index = (device or "").partition(":")
    first = api.place(device)
    if index and several:
        raise BackendError(
            f"device: {device!r} is one device, but a process of several drives all it sees; give {kind}"
        )
    devices = [first] if index else jax.devices(first.platform)
    return Processes(Mesh(np.array(devices), ("data",))) if len(devices) > 1 else SingleProcess()


def _meet(device: str | None) -> bool:
    """Meet the other processes; whether there are any."""
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    told = _told(os.environ)
    if told and told[1] > 1:
        _resolve(told[0])
        _initialise(*told)
    elif not told and _is_tpu_host(device):
        _initialise()
    return jax.process_count() > 1


def _told(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Where process 0 listens, how many processes there are and which this is: as JAX_* or SLURM's srun say it."""
    address = environ.get("JAX_COORDINATOR_ADDRESS", "")
    told = [environ[name] for name in NAMES if name in environ]
    if len(told) == len(NAMES):
        count, rank = told
        if not (count.isdecimal() and rank.isdecimal() and int(rank) < int(count)):
            raise BackendError(f"{NAMES[0]} {count}, {NAMES[1]} {rank}: expected a count and a number below it")
        if int(count) > 1 and not address:
            raise BackendError(f"{NAMES[0]} {count}: where is process 0? Set JAX_COORDINATOR_ADDRESS host:port")
        return address, int(count), int(rank)
    place = None if {"RANK", "WORLD_SIZE"} & environ.keys() else launch.place(environ)
    if place:
        return address or f"{place.address}:{place.port}", place.processes, place.rank
    if address:
        raise BackendError("JAX_COORDINATOR_ADDRESS: set JAX_NUM_PROCESSES and JAX_PROCESS_ID too")
    if environ.get("WORLD_SIZE", "1") != "1":
        raise BackendError(
            "WORLD_SIZE: torchrun's processes, whose port torch keeps; start JAX by srun or JAX_* variables"
        )
    return None


def _resolve(address: str) -> None:
    """BackendError unless the address has a port and its host a place; jax would end the process without a word."""
    host, _, port = address.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"JAX_COORDINATOR_ADDRESS {address}: {error}; set it to host:port of process 0, a host that all can reach"
        ) from None


def _is_tpu_host(device: str | None) -> bool:
    """Whether libtpu and chips are here: its hosts find each other, and one alone finds itself."""
    chips = any(Path(name).exists() for name in ("/dev/accel0", "/dev/vfio/0"))
    return chips and find_spec("libtpu") is not None and (device or "tpu").startswith("tpu")


def _initialise(address: str | None = None, processes: int | None = None, rank: int | None = None) -> None:
    try:
        jax.distributed.initialize(address, processes, rank)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"the processes of this run did not meet: {' '.join(str(error).split())}") from None
