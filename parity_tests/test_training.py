"""One update is the same update everywhere; so are fifty, and so is a run that changes framework on the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

import backends
import spec
from backends.initial import initial_arrays
from backends.protocol import Batch, Optimizer, State, Trainer, TrainerOptions
from parity_tests import oracle, tolerances
from parity_tests.oracle.training import normalised
from parity_tests.strategies import CASES, Case
from parity_tests.subjects import SUBJECTS, Subject
from spec.model import WeightInit

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """A case to train on, and how."""

    case: Case
    optimizer: Optimizer
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bytes: bool = False  # uint8 images
    micro: int = 1  # micro-batches per update

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step: every random decision of them."""
        return [self.batch(1000 * step + part) for part in range(self.micro)]

    def batch(self, seed: int) -> Batch:
        drawn, rng = replace(self.case, seed=seed), np.random.default_rng(seed)
        images = rng.integers(0, 256, drawn.images.shape, dtype=np.uint8) if self.bytes else drawn.images
        if isinstance(self.case.model, spec.FCMAE):
            return Batch(images=images, mask=drawn.mask)
        targets = rng.dirichlet(np.ones(self.case.model.num_classes), len(images)).astype(np.float32)
        rates = self.case.model.encoder.drop_path_rates()
        keep = rng.random((len(images), len(rates))) >= rates
        return Batch(images=images, targets=targets, keep_paths=keep.astype(np.uint8))


DROPPING = replace(
    CASES["classifier"], model=spec.classifier(depths=(1, 2), dims=(8, 8), num_classes=3, drop_path=0.4, stem_stride=2)
)
COLOUR = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "bytes": True, "micro": 2}
RECIPES = {
    "pretrain": Recipe(CASES["batch of three"], Optimizer()),
    "pretrain, all options": Recipe(
        CASES["batch of three"], Optimizer(clip_grad=0.1, layer_decay=0.8, ema_decay=0.9), **COLOUR
    ),
    "finetune, all options": Recipe(
        DROPPING, Optimizer(0.3, (0.9, 0.999), clip_grad=0.1, layer_decay=0.7, ema_decay=0.99), **COLOUR
    ),
    "pretrain V1": Recipe(CASES["V1"], Optimizer(weight_decay=0.5, layer_decay=0.8)),
    "finetune by groups": Recipe(DROPPING, Optimizer(layer_decay=0.6, layer_decay_type="group")),
}


@cache
def trainer(backend: str, label: str, dtype: Any, engine: str | None = None) -> Trainer:
    """One per recipe, since each compiles anew; every test begins with `restore`."""
    recipe = RECIPES[label]
    kind = backends.load(backend).Trainer
    options = TrainerOptions(seed=5, dtype=dtype, engine=engine, mean=recipe.mean, std=recipe.std)
    return kind(recipe.case.model, recipe.optimizer, options)


def fresh(label: str) -> State:
    """The state at the start of a run."""
    params = {name: array.astype(np.float64) for name, array in initial_arrays(RECIPES[label].case.model, 5).items()}
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    averaged = RECIPES[label].optimizer.ema_decay is not None
    return State(params, dict(zeros), dict(zeros), dict(params) if averaged else {})


def midway(label: str) -> State:
    """A state in the middle of a run, where one update is a smooth function of its gradient."""
    case = RECIPES[label].case
    draws = [replace(case, seed=seed).arrays for seed in range(4)]
    nu = {name: array**2 + 0.01 for name, array in draws[2].items()}
    averaged = RECIPES[label].optimizer.ema_decay is not None
    return State(draws[0], draws[1], nu, draws[3] if averaged else {}, t=3)


def assert_states(found: State, expected: State, bound: float, what: str) -> None:
    assert found.t == expected.t, what
    for part in ("params", "mu", "nu", "ema"):
        tolerances.assert_all_close(getattr(found, part), getattr(expected, part), bound, f"{what}, {part}")


def truth(label: str, state: State, steps: range, rate: Callable[[int], float]) -> tuple[State, list[dict[str, float]]]:
    """The oracle's state and figures after some updates."""
    recipe, seen = RECIPES[label], []
    for step in steps:
        options = {"mean": recipe.mean, "std": recipe.std}
        batches = recipe.batches(step)
        state, figures = oracle.train_step(recipe.case.model, recipe.optimizer, state, batches, rate(step), **options)
        seen.append(figures)
    return state, seen


def run(subject: Trainer, label: str, steps: range, rate: Callable[[int], float]) -> list[float]:
    """The losses of some updates."""
    return [float(subject.step(RECIPES[label].batches(step), rate(step))["loss"]) for step in steps]


def warmup(step: int) -> float:
    return min(step + 1, 10) * 5e-4


ONCE = range(1)
RUNS = [(label, "float64") for label in RECIPES] + [("finetune, all options", "float32")]


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize(("label", "dtype"), RUNS)
def test_one_update(label: str, dtype: str, backend: str) -> None:
    subject, state, case = trainer(backend, label, dtype), midway(label), RECIPES[label].case
    subject.restore(state)
    figures = subject.step(RECIPES[label].batches(0), warmup(0))
    expected, (seen,) = truth(label, state, ONCE, warmup)
    bound, what = tolerances.gradient(dtype, case), f"{backend} {dtype}, {label}"
    tolerances.assert_close(figures["loss"], seen["loss"], tolerances.forward(dtype, case), f"{what}, loss")
    tolerances.assert_close(figures["grad_norm"], seen["grad_norm"], bound, f"{what}, gradient norm")
    assert_states(subject.export(), expected, bound, what)


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_one_update_under_every_engine(subject: Subject) -> None:
    state, case = midway("pretrain"), RECIPES["pretrain"].case
    tested = trainer(subject.backend, "pretrain", "float64", subject.engine)
    tested.restore(state)
    tested.step(RECIPES["pretrain"].batches(0), warmup(0))
    expected, _ = truth("pretrain", state, ONCE, warmup)
    assert_states(tested.export(), expected, tolerances.gradient("float64", case), str(subject))


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize(
    ("label", "dtype"),
    [("pretrain", "float64"), ("finetune, all options", "float64"), ("finetune, all options", "float32")],
)
def test_fifty_updates(label: str, dtype: str, backend: str) -> None:
    subject, steps = trainer(backend, label, dtype), range(50)
    subject.restore(fresh(label))
    losses = run(subject, label, steps, warmup)
    expected, seen = truth(label, fresh(label), steps, warmup)
    bound, what = tolerances.TRAJECTORY[dtype], f"{backend} {dtype}, {label}"
    tolerances.assert_close(losses, [figures["loss"] for figures in seen], bound, f"{what}, losses")
    assert_states(subject.export(), expected, bound, what)


@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs both frameworks")
def test_a_run_may_change_framework_on_the_way() -> None:
    label = "pretrain, all options"
    first, second = (trainer(name, label, "float64") for name in backends.NAMES)
    first.restore(fresh(label))
    for tested, other, steps in ((first, second, range(4)), (second, first, range(4, 8)), (first, None, range(8, 12))):
        run(tested, label, steps, warmup)
        if other is not None:
            other.restore(tested.export())
    expected, _ = truth(label, fresh(label), range(12), warmup)
    assert_states(first.export(), expected, tolerances.TRAJECTORY["float64"], "torch, jax, torch")


@pytest.mark.parametrize("backend", backends.installed())
def test_a_trainer_starts_fresh_and_exports_copies(backend: str) -> None:
    label = "pretrain, all options"
    recipe, kind = RECIPES[label], backends.load(backend).Trainer
    options = TrainerOptions(seed=5, dtype="float64", mean=recipe.mean, std=recipe.std)
    tested = kind(recipe.case.model, recipe.optimizer, options)
    state = tested.export()
    start = fresh(label)
    for part in ("params", "mu", "nu", "ema"):
        tolerances.assert_same(getattr(state, part), getattr(start, part), f"{backend}, {part}")
    tested = trainer(backend, label, "float64")
    tested.restore(state)
    tested.step(recipe.batches(0), warmup(0))
    kept = tested.export()
    before = {name: array.copy() for name, array in kept.params.items()}
    tested.step(recipe.batches(1), warmup(1))
    tolerances.assert_same(kept.params, before, f"{backend}, exported")
    tolerances.assert_same(state.params, start.params, f"{backend}, restored")


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("ema", [False, True])
def test_evaluation_uses_the_parameters_or_their_ema(backend: str, ema: bool) -> None:
    label = "finetune, all options"
    tested, state, recipe = trainer(backend, label, "float64"), midway(label), RECIPES[label]
    tested.restore(state)
    batch = Batch(images=recipe.batch(0)["images"])
    found = tested.evaluate(batch, ema=ema)
    images = normalised(batch["images"], recipe.mean, recipe.std)
    expected = oracle.forward(recipe.case.model, state.ema if ema else state.params, images)
    expected = {name: expected[name] for name in found}
    assert found.keys() == {"features", "logits"}
    tolerances.assert_all_close(found, expected, tolerances.forward("float64", recipe.case), backend)


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("label", "start"),
    [("equal widths", {"init": init}) for init in get_args(WeightInit)] + [("classifier", {"head_init_scale": 0.5})],
)
def test_every_backend_starts_from_the_same_bits(label: str, start: Any, dtype: Any, backend: str) -> None:
    model, loaded = replace(CASES[label].model, **start), backends.load(backend)
    expected = {name: array.astype(dtype) for name, array in initial_arrays(model, 7).items()}
    tolerances.assert_same(loaded.get_arrays(loaded.build(model, seed=7, dtype=dtype)), expected, backend)
    assert any(
        (array != other).any()
        for array, other in zip(expected.values(), initial_arrays(model, 8).values(), strict=True)
    )
