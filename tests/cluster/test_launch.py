"""The other processes as the environment describes them, and the error where the description is incomplete."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from backends import launch
from backends.cluster import SingleProcess
from backends.protocol import BackendError
from tests.cluster.runs import ended, free_port, start

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NODELIST": "gpu[05-08]",
}
BATCH = {name: value for name, value in SRUN.items() if "STEP" not in name} | {"SLURM_PROCID": "0"}


def test_torchrun_is_understood() -> None:
    assert launch.place(TORCHRUN) == launch.Place(3, 8, 1, "node7", 29500)


def test_srun_is_understood() -> None:
    assert launch.place(SRUN) == launch.Place(9, 16, 1, "gpu07", 24711)
    environ = SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29500"}
    assert launch.place(environ) == launch.Place(9, 16, 1, "10.0.0.7", 29500)
    assert launch.place(SRUN | TORCHRUN) == launch.place(TORCHRUN)


OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "prterun-host-77@1",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "4"}


def test_mpirun_is_understood() -> None:
    """On one machine; on several it has to say where the first is. An srun around it is that of its daemons."""
    assert launch.place(OPEN_MPI) == launch.place(SRUN | OPEN_MPI) == launch.Place(3, 4, 3, "127.0.0.1", 20771)
    assert launch.place(MPICH) == launch.Place(3, 4, 3, "127.0.0.1", launch.port(str(os.getppid())))
    for given in (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, MPICH | {"MPI_LOCALNRANKS": "2"}):
        remedies = r"Open MPI: mpirun -x MASTER_ADDR=HOST; MPICH and Intel MPI: mpirun -genv MASTER_ADDR HOST\)"
        with pytest.raises(BackendError, match=rf"^MASTER_ADDR: not in the environment.* \({remedies}"):
            launch.place(given)
        there = given | {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
        assert launch.place(there) == launch.Place(3, 4, 3, "node7", 29500)
    assert launch.place(TORCHRUN | OPEN_MPI | MPICH) == launch.place(TORCHRUN)


def test_an_mpirun_inside_a_slurm_job_is_understood() -> None:
    """SLURM's variables are those of its daemons, one per machine: all processes of a machine share them."""
    daemon = SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    assert launch.place(daemon | MPICH) == launch.Place(3, 4, 3, "127.0.0.1", launch.port(str(os.getppid())))
    assert launch.place(SRUN | {"PMI_RANK": "9", "PMI_SIZE": "16"}) == launch.place(SRUN)


def test_two_processes_of_mpirun_are_one_run(tmp_path: Path) -> None:
    """Its variables, in torch: one process writes, and the other is rank 1."""
    pytest.importorskip("torch")
    script = (
        "from backends.torch.cluster import init_cluster as i\nc = i('cpu'); print(c.rank, c.processes); c.shutdown()"
    )
    given = OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "MASTER_PORT": str(free_port())}
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
    processes = [start(["-c", script], **given | dict.fromkeys(names, str(rank))) for rank in range(2)]
    assert [text.splitlines()[-1:] for _, text in ended(processes)] == [["0 2"], ["1 2"]]


@pytest.mark.parametrize("alone", [{}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, BATCH])
def test_one_process_is_alone(alone: dict[str, str]) -> None:
    """So is a batch script, though its environment describes the tasks that srun would start."""
    assert launch.place(alone) is None


def test_a_number_of_tasks_that_is_no_number_is_one_line() -> None:
    with pytest.raises(BackendError, match=r"^environment: .*WORLD_SIZE=many.*must be whole numbers$"):
        launch.place(SRUN | {"SLURM_STEP_NUM_TASKS": "many"})


def test_what_is_announced_is_understood() -> None:
    place = launch.Place(1, 2, 0, "here", launch.port("12345"))
    environ = launch.environment(place)
    assert launch.place(environ) == place
    assert (environ["JAX_PROCESS_ID"], environ["JAX_NUM_PROCESSES"]) == ("1", "2")
    assert environ["JAX_COORDINATOR_ADDRESS"] == f"here:{place.port}"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("gpu[3,5]-ib", "gpu3-ib"),
        ("rack[02-03]node[1-4]", "rack02node1"),
    ],
)
def test_the_first_of_a_list_of_hosts(nodes: str, first: str) -> None:
    assert launch.first_host(nodes) == first


def test_every_job_has_its_own_port() -> None:
    found = {launch.port(str(job)) for job in range(1000)}
    assert len(found) == 1000
    assert found < set(launch.PORTS)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"RANK": None}, "RANK: not in the environment beside WORLD_SIZE, LOCAL_RANK"),
        ({"MASTER_ADDR": None, "MASTER_PORT": None}, "MASTER_ADDR, MASTER_PORT: not in the environment"),
        ({"WORLD_SIZE": "many"}, "environment: RANK=3, WORLD_SIZE=many"),
        ({"WORLD_SIZE": "3"}, "environment: RANK=3 is not below WORLD_SIZE=3"),
    ],
)
def test_an_incomplete_description_is_one_line(change: dict[str, str | None], line: str) -> None:
    environ = {name: value for name, value in (TORCHRUN | change).items() if value is not None}
    with pytest.raises(BackendError) as error:
        launch.place(environ)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


class TestJoin:
    """torch's `init_cluster`."""

    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        pytest.importorskip("torch")

    def test_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from backends.torch import cluster

        for name in {*launch.NAMES, *SRUN} & os.environ.keys():
            monkeypatch.delenv(name)
        assert cluster.init_cluster() == SingleProcess()

    @pytest.mark.parametrize("address", ["127.0.0.1", "no-such-host.invalid"])
    def test_where_nobody_is_there_is_one_line(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from backends.torch import cluster

        there = launch.Place(1, 2, 0, address, free_port())
        for name, value in launch.environment(there).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cluster, "MEETING", timedelta(seconds=0.5))
        with pytest.raises(BackendError) as error:
            cluster.init_cluster("cpu")
        assert str(error.value).startswith(f"process 1 of 2 could not connect to {address}:{there.port} (")
        assert "set MASTER_ADDR and MASTER_PORT" in str(error.value)
        assert "\n" not in str(error.value)

    def test_other_errors_are_not_reported_as_a_lost_process(self) -> None:
        from backends.torch.cluster import distributed_errors

        with pytest.raises(RuntimeError, match="shapes"), distributed_errors():
            raise RuntimeError("shapes cannot be multiplied")
        with pytest.raises(BackendError, match="another process is gone"), distributed_errors():
            raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
