"""A fine-tuning run with all that a recipe names is the same in both frameworks, and the oracle agrees."""

from functools import cache

import numpy as np
import pytest

import backends
import spec
from backends.protocol import Batch, Dtype, Optimizer, State, Trainer, TrainerOptions
from parity_tests import tolerances
from parity_tests.oracle.training import train_step
from parity_tests.strategies import Case
from train.config import cli
from train.schedule import Schedule
from train.tasks.finetune import Finetuning

RECIPE = (
    "--task finetune --model none --depths 1 2 --dims 8 12 --patch_size 8 --batch_size 4 --update_freq 2 --lr 3e-3"
    " --mixup 0.8 --cutmix 1.0 --mix_group 4 --smoothing 0.1 --reprob 0.5 --aa rand-m9-mstd0.5-inc1 --drop_path 0.3"
    " --layer_decay 0.7 --model_ema True --model_ema_decay 0.9 --clip_grad 0.5 --weight_decay 0.3 --warmup_epochs 0.1"
)
UPDATES = 50


@cache
def task() -> Finetuning:
    return Finetuning(cli.parse(RECIPE.split()))


@cache
def updates() -> list[tuple[list[Batch], float]]:
    """The micro-batches and the learning rate of each update; in float64, so that the oracle computes in it."""
    config = task().config
    schedule = Schedule.of(config, len(task().source))
    feed = task().feed(config.optimizer.batch_size, config.effective_batch, schedule.updates_per_epoch)
    frequency = config.optimizer.update_freq
    numbers = [range(update * frequency, (update + 1) * frequency) for update in range(UPDATES)]
    return [([_wide(feed(index)[0]) for index in each], schedule.lr(n + 1)) for n, each in enumerate(numbers)]


def _wide(batch: Batch) -> Batch:
    return {**batch, "images": batch["images"].astype(np.float64), "targets": batch["targets"].astype(np.float64)}


def start(model: spec.Model) -> State:
    """Fresh parameters and moments, and an EMA that differs from the parameters."""
    params = {name: array.astype(np.float64) for name, array in task().first_arrays(print).items()}
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    return State(params, zeros, zeros, {name: 0.5 * array for name, array in params.items()})


def trained(backend: str, dtype: Dtype, count: int) -> tuple[list[dict[str, float]], State]:
    """Losses and gradient norms of some updates, and the state after them."""
    config, model = task().config, task().model
    kind = backends.load(backend).Trainer
    options = TrainerOptions(dtype=dtype, mean=config.data.mean, std=config.data.std, device="cpu")
    trainer: Trainer = kind(model, task().optimizer, options)
    trainer.restore(start(model))
    outcomes = [trainer.step(batches, lr) for batches, lr in updates()[:count]]
    return [{name: float(value) for name, value in each.items()} for each in outcomes], trainer.export()


def case() -> Case:
    """The case from which tolerances are computed."""
    return Case(task().model, (4, 4), 16)


def test_the_recipe_leaves_nothing_out() -> None:
    batches, _ = updates()[0]
    shares = np.concatenate([batch["targets"] for each, _ in updates() for batch in each])
    assert all("keep_paths" in batch for batch in batches)
    assert ((shares > 0.2) & (shares < 0.7)).any()
    assert task().optimizer == Optimizer(0.3, (0.9, 0.999), 1e-8, 0.5, 0.7, "single", 0.9)


@pytest.mark.parametrize("backend", backends.NAMES)
def test_one_update_is_the_oracles_in_float64(backend: str) -> None:
    config = task().config
    batches, lr = updates()[0]
    state = start(task().model)
    expected, reported = train_step(
        task().model, task().optimizer, state, batches, lr, mean=config.data.mean, std=config.data.std
    )
    assert reported["grad_norm"] > task().config.optimizer.clip_grad  # clipping acts
    (outcome,), found = trained(backend, "float64", 1)
    bound = tolerances.gradient("float64", case())
    bounds = {"mu": bound, "nu": bound} | dict.fromkeys(("params", "ema"), tolerances.TRAJECTORY["float64"])
    for part, allowed in bounds.items():
        tolerances.assert_all_close(getattr(found, part), getattr(expected, part), allowed, f"{backend}, {part}")
    for name, value in reported.items():
        tolerances.assert_close(np.array(outcome[name]), np.array(value), bound, f"{backend}, {name}")
    assert found.t == 1


def test_fifty_updates_are_the_same_in_float32() -> None:
    runs = [trained(backend, "float32", UPDATES) for backend in backends.NAMES]
    (ours, state), (theirs, expected) = runs
    bound = tolerances.TRAJECTORY["float32"]
    for name in ("loss", "grad_norm"):
        found, other = (np.array([outcome[name] for outcome in outcomes]) for outcomes in (ours, theirs))
        tolerances.assert_close(found, other, bound, name)
    for part in ("params", "ema"):
        tolerances.assert_all_close(getattr(state, part), getattr(expected, part), bound, part)
    assert state.t == expected.t == UPDATES
    first = start(task().model).params
    assert max(np.abs(state.params[name] - first[name]).max() for name in first) > 0.01
