"""How the processes of a JAX run find each other, what is refused, and that a run of several is the run of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends import launch
from backends.protocol import BackendError
from parity_tests import tolerances
from tests.project.tree import ROOT
from tests.train.images import tree
from train.checkpoints import store

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

from backends.jax import cluster

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "77",
}
OTHERS = (*MPI, "JAX_COORDINATOR_ADDRESS", *cluster.NAMES, *launch.NAMES)


def initialised(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> list[tuple[object, ...]]:
    """The arguments that jax.distributed.initialize would get in this environment."""
    calls: list[tuple[object, ...]] = []
    for name in (*SLURM, *OTHERS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "_initialise", lambda *arguments: calls.append(arguments))
    cluster.init_cluster("cpu")
    return calls


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, []),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            [("localhost:1234", 2, 1)],
        ),
        (SLURM, [("localhost:24097", 4, 3)]),
        (MPI, [("127.0.0.1:20077", 4, 3)]),
        ({**SLURM, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "7"}, [("127.0.0.1:7", 4, 3)]),
        ({**SLURM, "JAX_COORDINATOR_ADDRESS": "127.0.0.1:9"}, [("127.0.0.1:9", 4, 3)]),
        ({name: SLURM[name] for name in SLURM if "STEP" not in name}, []),  # a script, not a step
    ],
)
def test_the_environment_is_read(
    environment: dict[str, str], expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert initialised(monkeypatch, environment) == expected


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "Set JAX_COORDINATOR_ADDRESS"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1"}, "set JAX_NUM_PROCESSES and JAX_PROCESS_ID too"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "a number below it"),
        ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES two"),
        ({**SLURM, "SLURM_STEP_NODELIST": "nowhere.invalid"}, "nowhere.invalid:24097"),
        ({**SLURM, "JAX_COORDINATOR_ADDRESS": "localhost"}, "host:port"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE: torchrun's processes"),
    ],
)
def test_an_incomplete_description_is_refused_in_one_line(
    environment: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match=line) as refusal:
        initialised(monkeypatch, environment)
    assert "\n" not in str(refusal.value)


FLAGS = (
    "--backend jax --device cpu --task finetune --precision float64 --model none --depths 1 1 --dims 8 64"
    " --patch_size 4 --input_size 16 --aa none --reprob 0 --batch_size 4 --max_steps 4 --warmup_epochs 1 --epochs 2"
    " --lr 0.01 --model_ema True --model_ema_eval True --print_freq 1"
)


def start(run_dir: Path, images: Path, devices: int, environment: dict[str, str], *flags: str) -> subprocess.Popen:
    """A process that trains."""
    words = [*FLAGS.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, "-m", "train", *words], cwd=ROOT, env=environ | environment)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def scores(run_dir: Path) -> list[float]:
    """The accuracies and losses of every evaluation."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for name, value in sorted(line.items()) if name.startswith(("acc", "val_loss"))]


def test_two_processes_of_two_devices_are_one_run(tmp_path: Path) -> None:
    images = tree(tmp_path / "images" / "train", classes=2, each=12).parent
    tree(images / "val", classes=2, each=5)  # ten: neither four nor eight divides them
    runs = [start(tmp_path / "one", images, 1, {}, "--update_freq", "4")]
    for name in ("replicated", "split"):
        address = f"127.0.0.1:{free_port()}"
        for rank in range(2):
            names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
            place = dict(zip(names, (address, "2", str(rank)), strict=True))
            runs.append(start(tmp_path / name, images, 2, place, "--shard", str(name == "split")))
    assert [run.wait(timeout=300) for run in runs] == [0] * 5
    one, *others = (store.newest(tmp_path / name / "checkpoints", print) for name in ("one", "replicated", "split"))
    assert one is not None
    expected = scores(tmp_path / "one")
    assert expected
    for name, found in zip(("replicated", "split"), others, strict=True):
        assert found is not None
        assert found.state.t == one.state.t == 4
        for part in ("params", "mu", "nu", "ema"):
            state, other = getattr(one.state, part), getattr(found.state, part)
            tolerances.assert_all_close(other, state, tolerances.TRAJECTORY["float64"], f"{name}, {part}")
        tolerances.assert_close(scores(tmp_path / name), expected, tolerances.TRAJECTORY["float64"], name)
