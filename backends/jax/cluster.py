"""The processes of a run, and how they connect."""

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
"""The variables that jax reads beside JAX_COORDINATOR_ADDRESS."""


class Processes:
    """See `backends.protocol.Cluster`; a process drives all its devices."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh  # every device of every process, in the order of the processes
        self.rank, self.processes = jax.process_index(), jax.process_count()
        self.devices = mesh.size // self.processes

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of the values over all processes, in float64."""
        bits = np.ascontiguousarray(values, np.float64).view(np.uint32)  # so that no accelerator rounds them
        return np.asarray(multihost_utils.process_allgather(bits, tiled=False)).view(np.float64).sum(0)

    def shutdown(self) -> None:
        """Leave the process group."""
        if self.processes > 1:
            jax.distributed.shutdown()


def init_cluster(device: str | None = None) -> Cluster:
    """Join the processes that the environment describes, if there are several; BackendError if that fails."""
    several = _join(device)
    kind, _, index = (device or "").partition(":")
    first = api.place(device)
    if index and several:
        raise BackendError(
            f"device: {device!r} is one device, but with several processes each uses all that it sees; give {kind}"
        )
    devices = [first] if index else jax.devices(first.platform)
    return Processes(Mesh(np.array(devices), ("data",))) if len(devices) > 1 else SingleProcess()


def _join(device: str | None) -> bool:
    """Connect to the other processes; return whether there are any."""
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    found = _processes(os.environ)
    if found and found[1] > 1:
        _resolve(found[0])
        _initialise(*found)
    elif not found and _is_tpu_host(device):
        _initialise()
    return jax.process_count() > 1


def _processes(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Address of process 0, number of processes and rank, from JAX_* variables or SLURM's srun; None if alone."""
    address = environ.get("JAX_COORDINATOR_ADDRESS", "")
    given = [environ[name] for name in NAMES if name in environ]
    if len(given) == len(NAMES):
        count, rank = given
        if not (count.isdecimal() and rank.isdecimal() and int(rank) < int(count)):
            raise BackendError(f"{NAMES[0]} {count}, {NAMES[1]} {rank}: expected a count and a number below it")
        if int(count) > 1 and not address:
            raise BackendError(
                f"{NAMES[0]} {count}: the address of process 0 is missing; set JAX_COORDINATOR_ADDRESS host:port"
            )
        return address, int(count), int(rank)
    place = None if {"RANK", "WORLD_SIZE"} & environ.keys() else launch.place(environ)
    if place:
        return address or f"{place.address}:{place.port}", place.processes, place.rank
    if address:
        raise BackendError("JAX_COORDINATOR_ADDRESS: set JAX_NUM_PROCESSES and JAX_PROCESS_ID too")
    if environ.get("WORLD_SIZE", "1") != "1":
        raise BackendError(
            "WORLD_SIZE: set by torchrun, whose port JAX cannot use; start JAX by srun or with JAX_* variables"
        )
    return None


def _resolve(address: str) -> None:
    """BackendError unless the address has a port and its host resolves; jax would abort the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"JAX_COORDINATOR_ADDRESS {address}: {error}; set it to host:port of process 0, reachable from all machines"
        ) from None


def _is_tpu_host(device: str | None) -> bool:
    """Whether this is a TPU host: libtpu finds the other hosts by itself."""
    chips = any(Path(name).exists() for name in ("/dev/accel0", "/dev/vfio/0"))
    return chips and find_spec("libtpu") is not None and (device or "tpu").startswith("tpu")


def _initialise(address: str | None = None, processes: int | None = None, rank: int | None = None) -> None:
    try:
        jax.distributed.initialize(address, processes, rank)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"jax.distributed could not connect the processes: {' '.join(str(error).split())}") from None
