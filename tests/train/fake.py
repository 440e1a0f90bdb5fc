"""A fake backend without a framework: its updates depend on every bit of a batch, and take no time."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec
from backends.cluster import SingleProcess
from backends.initial import initial_arrays
from backends.protocol import DEFAULTS, Arrays, Batch, Cluster, Optimizer, State, TrainerOptions
from convert.containers.run import PARTS, RunCheckpoint
from train import __main__, run
from train.checkpoints import store
from train.config import cli
from train.loop import Stopped

SHORT = (
    "--model none --depths 1 --dims 4 --patch_size 4 --input_size 16 --batch_size 12 --epochs 4 --warmup_epochs 1"
    " --blr 0.01 --print_freq 3"
)
"""Flags of a run that costs nothing but its batches."""

QUICK = f"{SHORT} --parity_check False --picture_freq 0 --decoder_embed_dim 4"
"""Those of pre-training."""

CLOCK = {"time", "images_per_s", "images_per_s_device", "data_wait", "memory_mb"}
"""The keys of a line of metrics.jsonl that differ between two runs."""


class Trainer:
    """A `backends.protocol.Trainer` that hashes its batches instead of learning from them."""

    execution = "nothing to choose"

    def __init__(
        self,
        model: spec.Model,
        optimizer: Optimizer,
        options: TrainerOptions = DEFAULTS,
        *,
        cluster: Cluster | None = None,
    ) -> None:
        self.model = model
        params = initial_arrays(model, options.seed)
        self.state = State(params, *({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2)))

    def step(self, batches: Sequence[Batch], lr: float) -> Mapping[str, Any]:
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", 0)))
        digest = hashlib.sha256(b"".join(batch[name].tobytes() for batch in batches for name in sorted(batch)))
        gradient = np.float32(int.from_bytes(digest.digest()[:4], "big") / 2**32)
        state = self.state
        for name, p in state.params.items():
            state.mu[name] = np.float32(0.9) * state.mu[name] + gradient
            state.nu[name] = np.float32(0.99) * state.nu[name] + gradient**2
            state.params[name] = p - np.float32(lr) * state.mu[name]
        state.t += 1
        return {"loss": gradient, "grad_norm": np.float32(1)}

    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        return {"prediction": np.zeros((*batch["mask"].shape, self.model.patch_values), np.float32)}

    def export(self) -> State:
        state = self.state
        return State(dict(state.params), dict(state.mu), dict(state.nu), {}, state.t)

    def restore(self, state: State) -> None:
        self.state = State(dict(state.params), dict(state.mu), dict(state.nu), {}, state.t)


class Backend:
    """The part of `backends.protocol.Backend` that a run needs."""

    Trainer = Trainer

    @staticmethod
    def use_compilation_cache(where: str = "") -> str:
        return ""

    @staticmethod
    def init_cluster(device: str | None = None) -> SingleProcess:
        return SingleProcess()


def train(images: Path, run_dir: Path, *flags: str) -> Stopped | None:
    """A run with the fake backend, of seven updates per epoch on 84 images."""
    words = [*QUICK.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]
    return run.train(cli.parse(words), lambda name: Backend)


def metrics(run_dir: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def last(run_dir: Path) -> RunCheckpoint:
    """The newest checkpoint of a run."""
    found = store.newest(run_dir / "checkpoints", print)
    assert found is not None
    return found


def assert_same_run(found: Path, expected: Path) -> None:
    """AssertionError unless two runs end at the same step with the same bits."""
    one, other = last(found), last(expected)
    assert one.step == other.step
    for part in PARTS:
        arrays, wanted = getattr(one.state, part), getattr(other.state, part)
        assert arrays.keys() == wanted.keys()
        for name, array in wanted.items():
            assert arrays[name].tobytes() == array.tobytes(), f"{part} {name}"


def main(argv: Sequence[str]) -> int:
    """The command line, with the fake backend: the folder of images, the run directory, flags."""
    train_ = run.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", lambda config: train_(config, lambda name: Backend))
        return __main__.main([*QUICK.split(), "--data_path", argv[0], "--output_dir", *argv[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
