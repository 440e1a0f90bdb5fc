"""Rank, world size and address from the environment of torchrun, mpirun or SLURM's srun."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from backends.protocol import BackendError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets for each process."""

MPI = {
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "PMI_SIZE": ("PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
"""World size -> rank, local rank and local size, as Open MPI's mpirun names them, and MPICH's and Intel's."""

PORTS = range(20_000, 32_000)
"""Below the range of ephemeral ports."""


class Place(NamedTuple):
    """Rank, number of processes, local rank, and the address and port of process 0."""

    rank: int
    processes: int
    local_rank: int
    address: str
    port: int


def place(environ: Mapping[str, str]) -> Place | None:
    """The place of this process, or None if it is the only one; BackendError if the description is incomplete.

    torchrun's variables come first, then those of mpirun, then SLURM's: inside a SLURM job, those of
    an mpirun's processes describe its daemons. Under mpirun and srun, MASTER_ADDR
    and MASTER_PORT may replace the name of the first machine and the port that is derived from the job's number.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        found = _read(environ)
    elif own := _of_open_mpi(environ) or _of_hydra(environ) or _of_slurm(environ) or _of_pmi(environ):
        found = _read(own)
    else:
        return None
    return found if found.processes > 1 else None


def environment(place: Place) -> dict[str, str]:
    """A place as environment variables of both frameworks: torchrun's, and those that JAX reads."""
    rank, processes, local_rank, address, port = map(str, place)
    variables = dict(zip(NAMES, (rank, processes, local_rank, address, port), strict=True))
    jax = ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS")
    return variables | dict(zip(jax, (rank, processes, f"{address}:{port}"), strict=True))


def port(job: str) -> int:
    """A port derived from the job's number: the same in all its processes, different for most jobs."""
    return PORTS[int(re.sub(r"\D", "", job) or 0) % len(PORTS)]


def first_host(nodes: str) -> str:
    """The first of a list of hosts as SLURM writes it: "gpu[07-09,12],cpu1" -> "gpu07"."""
    opened = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes)
    return opened.split(",")[0]


def _of_open_mpi(environ: Mapping[str, str]) -> dict[str, str]:
    return _of_mpi(environ, "OMPI_COMM_WORLD_SIZE")


def _of_hydra(environ: Mapping[str, str]) -> dict[str, str]:
    """As `_of_pmi`, of the mpirun of MPICH and Intel; srun sets PMI_SIZE, too, but no MPI_LOCALRANKID."""
    return _of_pmi(environ) if "MPI_LOCALRANKID" in environ else {}


def _of_pmi(environ: Mapping[str, str]) -> dict[str, str]:
    return _of_mpi(environ, "PMI_SIZE")


def _of_mpi(environ: Mapping[str, str], size: str) -> dict[str, str]:
    """torchrun's variables from those of mpirun; {} for a single process."""
    if environ.get(size, "1") == "1":
        return {}
    rank, local_rank, local_size = MPI[size]
    one_machine = environ.get(local_size) == environ[size]
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or str(os.getppid())
    return _known(
        RANK=environ.get(rank),
        WORLD_SIZE=environ[size],
        LOCAL_RANK=environ.get(local_rank),
        MASTER_ADDR=environ.get("MASTER_ADDR") or ("127.0.0.1" if one_machine else None),
        MASTER_PORT=environ.get("MASTER_PORT") or port(job),
    )


def _of_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from those of srun; {} for a single process, such as a batch script."""
    if environ.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return {}
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    return _known(
        RANK=environ.get("SLURM_PROCID"),
        WORLD_SIZE=environ["SLURM_STEP_NUM_TASKS"],
        LOCAL_RANK=environ.get("SLURM_LOCALID"),
        MASTER_ADDR=environ.get("MASTER_ADDR") or (nodes and first_host(nodes)),
        MASTER_PORT=environ.get("MASTER_PORT") or port(environ.get("SLURM_JOB_ID", "")),
    )


def _known(**values: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def _read(environ: Mapping[str, str]) -> Place:
    missing = [name for name in NAMES if name not in environ]
    if missing:
        there = ", ".join(name for name in NAMES if name in environ)
        raise BackendError(
            f"{', '.join(missing)}: not in the environment beside {there}; start several processes with torchrun,"
            " mpirun or srun, set these (Open MPI: mpirun -x MASTER_ADDR=HOST; MPICH and Intel MPI: mpirun -genv"
            " MASTER_ADDR HOST), or unset these variables"
        )
    try:
        rank, processes, local_rank, port = (int(environ[name]) for name in NAMES if name != "MASTER_ADDR")
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]}" for name in NAMES)
        raise BackendError(f"environment: {shown}: all but MASTER_ADDR must be whole numbers") from None
    if not 0 <= rank < processes:
        raise BackendError(f"environment: RANK={rank} is not below WORLD_SIZE={processes}")
    return Place(rank, processes, local_rank, environ["MASTER_ADDR"], port)
