"""Tiny runs of one process and of several, and their results."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from convert.containers.run import RunCheckpoint
from parity_tests.tolerances import TRAJECTORY, assert_all_close, assert_close
from tests.train.fake import CLOCK
from train.__main__ import main
from train.checkpoints import store

Process = subprocess.Popen[str]
ROOT = Path(__file__).parents[2]
TINY = (
    "--backend torch --device cpu --precision float64 --model none --depths 1 1 --dims 8 16 --patch_size 4"
    " --input_size 16 --num_workers 1"
)
TRAINED = "--epochs 4 --warmup_epochs 1 --blr 0.01 --print_freq 1"
"""With 40 images and 8 per update: 20 updates."""

PRETRAINED = f"{TRAINED} --parity_check False --picture_freq 4 --decoder_embed_dim 8"

FINETUNE = (
    "--task finetune --model_ema True --model_ema_eval True --model_ema_decay 0.9 --drop_path 0.2 --clip_grad 0.5"
    " --mixup 0.8 --cutmix 1 --mix_group 4 --eval_freq 2"
)
TASKS = {
    "pretrain": "--batch_size 1 --update_freq 8",
    "partial": "--batch_size 16 --drop_last False",
    "finetune": f"--batch_size 8 {FINETUNE}",
}
"""Each in one process."""


def command(images: Path, run_dir: Path, flags: str) -> list[str]:
    """The words after `python -m train`."""
    more = "" if "--task eval" in flags else TRAINED if "--task finetune" in flags else PRETRAINED
    return [*TINY.split(), *more.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags.split()]


def alone(images: Path, run_dir: Path, flags: str) -> Path:
    """The directory of a run of one process, which is this one."""
    assert main(command(images, run_dir, flags)) == 0
    return run_dir


def start(words: list[str], **environment: str) -> Process:
    """A Python with these words, in the repository's root, on one core."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_all(words: list[str], processes: int) -> list[Process]:
    """Start this many processes, as torchrun would."""
    environment = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [start(words, RANK=str(rank), LOCAL_RANK=str(rank), **environment) for rank in range(processes)]


def ended(processes: list[Process], timeout: float = 240) -> list[tuple[int, str]]:
    """Exit status and output of each."""
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def last(run_dir: Path) -> RunCheckpoint:
    found = store.newest(run_dir / "checkpoints", print)
    assert found is not None, run_dir
    return found


def metrics(run_dir: Path) -> dict[tuple[float, bool], dict[str, float]]:
    """The metrics of each update and evaluation, without those that depend on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
    return {(line["step"], "loss" in line): line for line in found}


def assert_same_run(found: Path, expected: Path) -> None:
    """The same weights, moments, EMA and metrics but for rounding in float64."""
    one, other = last(found), last(expected)
    assert one.step == other.step == one.state.t
    for part in ("params", "mu", "nu", "ema"):
        arrays = getattr(other.state, part)
        assert_all_close(getattr(one.state, part), arrays, TRAJECTORY["float64"], f"{found.name}, {part}")
    seen = metrics(found)  # a run that was stopped may have evaluated once more
    for key, line in metrics(expected).items():
        assert seen[key].keys() == line.keys()
        for name, value in line.items():
            what = f"{found.name}, step {key[0]}, {name}"
            assert_close(np.array(seen[key][name]), np.array(value), TRAJECTORY["float64"], what)
