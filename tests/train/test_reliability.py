"""Real runs of both frameworks, killed at random moments: `make reliability`.

A run that uses every feature, made small: a classifier of the digits with EMA, layer decay,
mixup, cutmix and drop path, evaluated during training.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

import backends
from convert.containers.run import PARTS
from parity_tests.tolerances import TRAJECTORY, assert_all_close
from tests.train.fake import CLOCK, assert_same_run, last
from tests.train.victim import Victim, saved, writing

pytestmark = pytest.mark.slow

KILLS = 20
FARTHEST = 15
"""Updates after which a kill by the clock waits no longer."""
RUN = (
    "--task finetune --data_path digits --model none --depths 1 1 --dims 8 16 --patch_size 8 --batch_size 8"
    " --warmup_epochs 0 --blr 0.01 --model_ema True --model_ema_decay 0.9 --model_ema_eval True --layer_decay 0.9"
    " --mixup 0.8 --cutmix 1.0 --mix_group 8 --drop_path 0.2 --print_freq 1 --num_workers 2"
)


def words(name: str, run_dir: Path, *flags: str) -> list[str]:
    return ["train", *RUN.split(), "--backend", name, "--output_dir", str(run_dir), *flags]


def finish(name: str, run_dir: Path, *flags: str) -> None:
    """Run to the end."""
    with Victim(*words(name, run_dir, *flags)) as run:
        status, said = run.end()
    assert status == 0, said


def newest(run_dir: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = saved(run_dir)
    return int(names[-1].removeprefix("step-")) if names else 0


def moment(draw: random.Random, run_dir: Path, victim: Victim) -> str:
    """Wait for a random moment: of the clock, of an update, or of a write; which kind it was.

    On a fast machine the clock stops early, so that the run outlives all kills.
    """
    kind = draw.choice(("clock", "update", "write"))
    start, saves = newest(run_dir), draw.randint(1, 3)
    if kind == "clock":
        until = time.monotonic() + draw.uniform(0, 6)
        victim.wait_for(lambda: time.monotonic() > until or newest(run_dir) >= start + FARTHEST)
        return kind
    victim.wait_for(lambda: newest(run_dir) >= start + 3 * saves)
    if kind == "write":
        victim.wait_for(lambda: writing(run_dir))
        time.sleep(draw.uniform(0, 0.01))
    else:
        time.sleep(draw.uniform(0, 0.2))
    return kind


def metrics(run_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


@pytest.mark.parametrize("name", backends.installed())
def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path: Path, name: str) -> None:
    seed = random.randrange(10**6)
    print(f"\n{name}: {KILLS} kills drawn from seed {seed}")
    draw, halves = random.Random(seed), 0
    flags, run_dir = ("--max_steps", "600", "--save_every_steps", "3"), tmp_path / "killed"
    for kill in range(KILLS):
        with Victim(*words(name, run_dir, *flags)) as victim:
            kind = moment(draw, run_dir, victim)
            victim.send("SIGKILL")
            status, said = victim.end()
        assert status == -signal.SIGKILL, said
        halves += writing(run_dir)
        print(f"kill {kill + 1}, {kind}: at step {newest(run_dir)}{', in a write' if writing(run_dir) else ''}")
    assert halves, "no kill fell into a write"
    for run in (run_dir, tmp_path / "whole"):
        finish(name, run, *flags)
    assert_same_run(run_dir, tmp_path / "whole")
    assert metrics(run_dir) == metrics(tmp_path / "whole")
    for best in ("best_acc1", "best_acc1_ema"):
        found, expected = (_bytes(run / best) for run in (run_dir, tmp_path / "whole"))
        assert found == expected != {}


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.glob("step-*/*.safetensors")}


@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs both frameworks")
def test_a_run_killed_in_jax_and_in_torch_ends_as_in_either(tmp_path: Path) -> None:
    flags = ("--max_steps", "60", "--save_every_steps", "5", "--precision", "float64")
    for name, step in (("jax", 15), ("torch", 35)):
        kill(name, tmp_path / "mixed", step, *flags)
    finish("jax", tmp_path / "mixed", *flags)
    mixed = last(tmp_path / "mixed")
    assert mixed.state.t == 60
    for name in ("torch", "jax"):
        finish(name, tmp_path / name, *flags)
        whole = last(tmp_path / name)
        for part in PARTS:
            found, expected = getattr(mixed.state, part), getattr(whole.state, part)
            assert_all_close(found, expected, TRAJECTORY["float64"], f"{part} of {name}")


def kill(name: str, run_dir: Path, step: int, *flags: str) -> None:
    """Kill a run once it has saved a checkpoint of `step` or later, before it ends."""
    with Victim(*words(name, run_dir, *flags)) as victim:
        assert victim.wait_for(lambda: newest(run_dir) >= step)
        victim.send("SIGKILL")
        assert victim.end()[0] == -signal.SIGKILL
    assert step <= newest(run_dir) < 60
