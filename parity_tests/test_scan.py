"""Blocks that JAX runs as a scan over their stacked parameters are the blocks of the spec, in its order."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import backends
import spec
from backends.protocol import State, TrainerOptions
from parity_tests import tolerances
from parity_tests.strategies import CASES
from parity_tests.test_training import COLOUR, DROPPING, ONCE, RECIPES, Optimizer, Recipe, truth, warmup

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

from backends.jax import Trainer, steps, update
from backends.jax.space.engines import ENGINES

DEPTH = steps.SCANNED_ON_CPU
SMALL = {"depths": (1, DEPTH), "dims": (8, 8), "stem_stride": 2}
AUTOENCODER = replace(
    CASES["batch of three"], model=spec.fcmae(**SMALL, decoder_dim=8, patch_size=4, image_size=8, mask_ratio=0.75)
)


def of_v1(model: spec.FCMAE) -> spec.FCMAE:
    return replace(model, encoder=replace(model.encoder, block="v1"))


CLASSIFIER = replace(DROPPING, model=spec.classifier(**SMALL, num_classes=3, drop_path=0.4))
DEEP = {
    "autoencoder": Recipe(AUTOENCODER, Optimizer()),
    "V1": Recipe(replace(AUTOENCODER, model=of_v1(AUTOENCODER.model)), Optimizer()),
    "classifier with dropped paths": Recipe(CLASSIFIER, Optimizer(ema_decay=0.9, layer_decay=0.7), **COLOUR),
}


@pytest.fixture(autouse=True)
def deep_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for label, recipe in DEEP.items():
        monkeypatch.setitem(RECIPES, label, recipe)


def state(label: str) -> State:
    """A state in the middle of a run."""
    recipe = DEEP[label]
    draws = [replace(recipe.case, seed=seed).arrays for seed in range(4)]
    nu = {name: array**2 + 0.01 for name, array in draws[2].items()}
    return State(draws[0], draws[1], nu, draws[3] if recipe.optimizer.ema_decay else {}, t=3)


def gap(label: str, **options: Any) -> float:
    """How far one update lies from the oracle's."""
    recipe = DEEP[label]
    settings = TrainerOptions(dtype="float64", mean=recipe.mean, std=recipe.std, **options)
    trainer = Trainer(recipe.case.model, recipe.optimizer, settings)
    trainer.restore(state(label))
    trainer.step(recipe.batches(0), warmup(0))
    found, (expected, _) = trainer.export(), truth(label, state(label), ONCE, warmup)
    assert found is not None
    return max(
        tolerances.gap(getattr(found, part)[name], array)
        for part in ("params", "mu", "nu", "ema")
        for name, array in getattr(expected, part).items()
    )


def bound(label: str) -> float:
    return tolerances.gradient("float64", DEEP[label].case)


@pytest.mark.parametrize(("label", "remat"), [*((label, False) for label in DEEP), ("autoencoder", True)])
def test_a_scanned_stage_is_updated_as_the_oracle_does(label: str, remat: bool) -> None:
    assert gap(label, remat=remat) <= bound(label)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("label", DEEP)
def test_a_stage_as_accelerators_run_it_is_updated_as_the_oracle_does(
    label: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops in the masked form too, and blocks that keep products and convolutions only."""
    monkeypatch.setattr(
        update.TrainStep, "platform", property(lambda self: "gpu", lambda self, name: None), raising=False
    )
    assert gap(label, engine=engine) <= bound(label)


def test_a_wrong_order_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    label = "autoencoder"
    monkeypatch.setattr(steps, "scan", partial(steps.scan, reverse=True))
    assert gap(label) > bound(label)
