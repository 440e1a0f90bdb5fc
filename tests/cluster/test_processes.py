"""An update shared by any number of processes, in torch: the same weights, moments, EMA and scores."""

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backends.protocol import State
from convert.containers.run import RunCheckpoint
from tests.cluster import runs
from tests.cluster.several import SCENARIOS
from tests.train.images import tree
from train.checkpoints import resume
from train.config import cli
from train.errors import TrainError
from train.logs.run_log import format_scores

pytest.importorskip("torch")

SCORES = ("acc1", "acc5", "val_loss", "macro_f1", "acc1_ema", "acc5_ema", "val_loss_ema", "macro_f1_ema")
STOPPED = f"--batch_size 8 --stop_at_step 7 {runs.FINETUNE}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images to train on, and 10 to evaluate on: three batches of four, the last of which is short."""
    root = tmp_path_factory.mktemp("images")
    tree(root / "train", classes=2, each=20)
    tree(root / "val", classes=2, each=5)
    return root


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each task's run in one process."""
    place = tmp_path_factory.mktemp("alone")
    return {task: runs.alone(images, place / task, flags) for task, flags in runs.TASKS.items()}


@pytest.fixture(scope="module")
def together(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of two processes are; one of them resumes a run of one process."""
    place = tmp_path_factory.mktemp("together")
    runs.alone(images, place / "from one process", STOPPED)
    ports = [str(runs.free_port()) for _ in SCENARIOS]
    words = ["-m", "tests.cluster.several", str(images), str(place), *ports]
    for rank, (status, said) in enumerate(runs.ended(runs.start_all(words, 2))):
        assert status == 0, said
        (place / f"said by {rank}").write_text(said)
    return place


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "," in name])
def test_two_processes_are_one(name: str, together: Path, alone: dict[str, Path]) -> None:
    runs.assert_same_run(together / name, alone[name.split(",")[0]])


def test_two_processes_resume_the_run_of_one(together: Path, alone: dict[str, Path]) -> None:
    runs.assert_same_run(together / "from one process", alone["finetune"])


def test_one_process_resumes_the_run_of_two(together: Path, alone: dict[str, Path], images: Path) -> None:
    run_dir = together / "to one process"
    assert runs.last(run_dir).step == 7
    runs.assert_same_run(runs.alone(images, run_dir, f"--batch_size 8 {runs.FINETUNE}"), alone["finetune"])


def test_an_evaluation_is_that_of_one_process_and_printed_once(together: Path) -> None:
    first, second = ((together / f"said by {rank}").read_text().split("evaluation:\n")[1] for rank in range(2))
    scores = runs.metrics(together / "finetune, copies")[20, False]
    assert format_scores({name: value for name, value in scores.items() if name in SCORES}) in first
    assert second == ""


def test_a_wrong_share_would_be_seen(together: Path, alone: dict[str, Path]) -> None:
    with pytest.raises(AssertionError):
        runs.assert_same_run(together / "pretrain, copies", alone["finetune"])


def torchrun(images: Path, run_dir: Path, flags: str, processes: int = 2) -> list[str]:
    launcher = f"-m torch.distributed.run --standalone --nproc_per_node={processes} -m train"
    return [*launcher.split(), *runs.command(images, run_dir, flags)]


def test_a_lost_process_ends_the_run_which_resumes_from_its_newest_checkpoint(images: Path, tmp_path: Path) -> None:
    whole = runs.alone(images, tmp_path / "whole", "--batch_size 8 --epochs 32")
    flags = "--batch_size 4 --epochs 32"
    words = runs.command(images, tmp_path / "run", flags)
    processes = runs.start_all(["-m", "train", *words], 2)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(processes[1].pid, signal.SIGKILL)
    (status, said), _ = runs.ended(processes, timeout=60)
    assert status == 2
    assert re.search(r"^train: another process is gone \(.*The same command resumes", said, re.MULTILINE), said
    assert runs.last(tmp_path / "run").step < 160
    ((status, said),) = runs.ended([runs.start(torchrun(images, tmp_path / "run", flags))])
    assert status == 0, said
    assert "resumed from" in said
    runs.assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_eight_processes_are_one(images: Path, tmp_path: Path, alone: dict[str, Path]) -> None:
    ((status, said),) = runs.ended([runs.start(torchrun(images, tmp_path / "run", "--batch_size 1", processes=8))])
    assert status == 0, said
    runs.assert_same_run(tmp_path / "run", alone["pretrain"])


@pytest.mark.parametrize(
    ("theirs", "devices", "line"),
    [
        (16, 4, "32 images per update, the run began with 16, as --batch_size 4 --up"),
        (96, 3, "24 images per update, the run began with 96, as --batch_size 8 --up"),
        (16, 3, "24 images per update, the run began with 16, which 3 devices cannot"),
    ],
)
def test_another_batch_is_refused_with_numbers_that_fit(theirs: int, devices: int, line: str) -> None:
    config = replace(cli.parse(["--batch_size", "8", "--update_freq", "1"]), devices=devices)
    identity = {"effective_batch": config.effective_batch, "model": {}}
    found = RunCheckpoint(Path("step"), 1, State({}), {"identity": {"effective_batch": theirs, "model": {}}})
    with pytest.raises(TrainError) as error:
        resume._refuse_another(found, {"task": None, "seed": None, **identity}, config)
    assert str(error.value).startswith(f"--batch_size x --update_freq x {devices} devices: {line}")
    fits = re.search(r"--batch_size (\d+) --update_freq (\d+)", str(error.value))
    assert fits is None or int(fits[1]) * int(fits[2]) * devices == theirs
