"""What a block computes again in its backward pass, or through a compiler, is what it computed before."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import backends
from backends.protocol import State, TrainerOptions
from parity_tests import tolerances
from parity_tests.strategies import CASES
from parity_tests.subjects import SUBJECTS, Subject
from parity_tests.test_training import RECIPES, assert_states, midway, warmup

torch_only = pytest.mark.skipif("torch" not in backends.installed(), reason="torch is not installed")
LABELS = pytest.mark.parametrize("label", ["pretrain, all options", "finetune, all options"])
own_doing = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates


def updated(backend: str, label: str, **options: Any) -> State:
    """The state after one update from the middle of a run."""
    recipe = RECIPES[label]
    settings = TrainerOptions(dtype="float64", mean=recipe.mean, std=recipe.std, **options)
    trainer = backends.load(backend).Trainer(recipe.case.model, recipe.optimizer, settings)
    trainer.restore(midway(label))
    trainer.step(recipe.batches(0), warmup(0))
    state = trainer.export()
    assert state is not None
    return state


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_an_update_is_the_same(subject: Subject) -> None:
    label = "pretrain, all options"
    plain, again = (updated(subject.backend, label, engine=subject.engine, remat=remat) for remat in (False, True))
    assert_states(again, plain, tolerances.gradient("float64", RECIPES[label].case), f"{subject}, remat")


@torch_only
@LABELS
def test_torch_gives_the_same_bits_whatever_paths_are_dropped(label: str) -> None:
    plain, again = (updated("torch", label, remat=remat) for remat in (False, True))
    for part in ("params", "mu", "nu", "ema"):
        tolerances.assert_same(getattr(again, part), getattr(plain, part), part)


def kept(engine: str, remat: bool) -> int:
    """Bytes that torch holds between forward and backward pass, without the parameters."""
    import torch

    case = CASES["batch of three"]
    _, net = Subject("torch", engine).load(case.model, case.arrays, "float64")
    own, found = {p.data_ptr() for p in net.parameters()}, dict[int, int]()

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor  # itself, so that no other tensor takes its place in memory

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.from_numpy(case.images), torch.from_numpy(case.mask), engine=engine, remat=remat)["loss"]
    return sum(size for pointer, size in found.items() if pointer not in own)


@torch_only
@pytest.mark.parametrize("engine", ["masked", "visible"])
def test_a_block_keeps_nothing_but_its_input(engine: str) -> None:
    assert kept(engine, remat=True) < kept(engine, remat=False) / 2


@torch_only
@own_doing
def test_a_compiled_update_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    check_compiled("pretrain, all options")


@torch_only
@own_doing
@pytest.mark.slow
@LABELS
def test_an_update_compiled_for_this_machine_is_the_same(label: str) -> None:
    import torch

    torch.compiler.reset()
    check_compiled(label)


def check_compiled(label: str) -> None:
    bound = tolerances.gradient("float64", RECIPES[label].case)
    for remat in (False, True):
        plain, compiled = updated("torch", label, remat=remat), updated("torch", label, remat=remat, compile=True)
        assert_states(compiled, plain, bound, f"compiled, remat {remat}")


@torch_only
def test_minkowski_cannot_be_compiled() -> None:
    recipe = RECIPES["pretrain"]
    with pytest.raises(backends.protocol.BackendError, match="no compiler"):
        backends.load("torch").Trainer(
            recipe.case.model, recipe.optimizer, TrainerOptions(engine="minkowski", compile=True)
        )


def test_a_wrong_recomputation_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = pytest.importorskip("backends.torch.steps")
    monkeypatch.setattr(steps, "checkpoint", lambda function, *args, **_: function(*args).detach())
    with pytest.raises(AssertionError):
        test_an_update_is_the_same(Subject("torch", "visible"))
    assert np.isfinite(updated("torch", "pretrain, all options").params["pred.bias"]).all()
