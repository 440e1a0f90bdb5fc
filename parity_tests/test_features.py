"""Feature maps: of every model, of any stages, masked or not, in both layouts, differentiated and transformed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given

import backends
import spec
from backends.jax import api
from parity_tests import oracle, tolerances
from parity_tests.strategies import CASES, Case, backbone_cases
from parity_tests.subjects import SUBJECTS, Subject, truth
from parity_tests.test_laws import assert_obeys

CASE = CASES["backbone"]
WHOLE = replace(CASE, visible=4)
DTYPE = "float64"
STEP = 1e-30
"""A step along the imaginary axis, as in test_oracle.py."""

subjects = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
cases = pytest.mark.parametrize("case", [CASE, WHOLE], ids=["masked", "whole"])


def features(subject: Subject, case: Case, *args: Any, **options: Any) -> list[np.ndarray]:
    """The maps by the module's own method, in the framework's own arrays."""
    _, net = subject.load(case.model, case.arrays, DTYPE)
    options["engine"] = subject.engine
    if subject.backend == "torch":
        mask = None if case.mask is None else torch.from_numpy(case.mask)
        return [found.detach().numpy() for found in net.features(torch.from_numpy(case.images), *args, mask, **options)]
    with api.precision(DTYPE):
        return [np.asarray(found) for found in net.features(jnp.asarray(case.images), *args, case.mask, **options)]


def assert_maps(found: list[np.ndarray], case: Case, stages: list[int], what: str) -> None:
    assert len(found) == len(stages)
    for stage, value in zip(stages, found, strict=True):
        tolerances.assert_close(value, truth(case)[f"stage{stage}"], tolerances.forward(DTYPE, case), what)


@subjects
@cases
def test_stages_come_in_the_order_and_layout_asked_for(case: Case, subject: Subject) -> None:
    assert_maps(features(subject, case, None), case, [0, 1], str(subject))
    first_last = [value.transpose(0, 2, 3, 1) for value in features(subject, case, (1, 0), layout="NCHW")]
    assert_maps(first_last, case, [1, 0], str(subject))
    _, net = subject.load(case.model, case.arrays, DTYPE)
    shapes = [value.shape for value in features(subject, case, None)]
    sides = [(case.images.shape[1] // info.stride, info.channels) for info in net.feature_info()]
    assert [(shape[1], shape[3]) for shape in shapes] == sides


@subjects
@pytest.mark.parametrize("label", ["batch scope", "masked classifier"])
def test_the_encoder_of_any_model_has_features(label: str, subject: Subject) -> None:
    case = CASES[label]
    prefix = "encoder." if isinstance(case.model, spec.FCMAE) else ""
    for stage, found in enumerate(features(subject, case, None)):
        last = f"{prefix}stages.{stage}.{case.model.encoder.depths[stage] - 1}"
        tolerances.assert_close(found, truth(case)[last], tolerances.forward(DTYPE, case), f"{subject}, {last}")


@pytest.mark.parametrize("backend", backends.installed())
@given(case=backbone_cases())
def test_any_backbone(backend: str, case: Case) -> None:
    for subject in SUBJECTS:
        if subject.backend == backend:
            assert_obeys(subject, case, "float64")


def weights_of(case: Case) -> list[np.ndarray]:
    """A cotangent for every map: random, so that no two sites or channels weigh the same."""
    rng = np.random.default_rng(5)
    return [rng.normal(size=truth(case)[f"stage{stage}"].shape) for stage in range(2)]


def torch_gradients(engine: str, case: Case, transform: Callable[[Any], Any] = lambda f: f) -> dict[str, np.ndarray]:
    _, net = Subject("torch", engine).load(case.model, case.arrays, DTYPE)
    mask = None if case.mask is None else torch.from_numpy(case.mask)
    function = transform(lambda x, mask: net.features(x, mask=mask, engine=engine, visible=case.visible))
    maps = function(torch.from_numpy(case.images), mask)
    total = sum((value * torch.from_numpy(w)).sum() for value, w in zip(maps, weights_of(case), strict=True))
    slopes = torch.autograd.grad(total, list(net.parameters()))
    return {name: slope.numpy() for (name, _), slope in zip(net.named_parameters(), slopes, strict=True)}


def jax_gradients(engine: str, case: Case) -> dict[str, np.ndarray]:
    from flax import nnx

    _, net = Subject("jax", engine).load(case.model, case.arrays, DTYPE)

    @jax.jit
    @jax.grad
    def slopes(params: Any, images: Any, mask: Any) -> Any:
        maps = api.bind(nnx.graphdef(net), params).features(images, mask=mask, engine=engine, visible=case.visible)
        return sum((value * w).sum() for value, w in zip(maps, weights_of(case), strict=True))

    with api.precision(DTYPE):
        return api.canonical(case.model, slopes(api.flat(net), jnp.asarray(case.images), case.mask))


def slope_along(case: Case, name: str, direction: np.ndarray) -> float:
    """The derivative of the weighted sum of the oracle's maps by one array, along a direction."""
    arrays = {**case.arrays, name: case.arrays[name] + 1j * STEP * direction}
    found = oracle.forward(case.model, arrays, case.images, case.mask)
    return sum((found[f"stage{k}"].imag * w).sum() for k, w in enumerate(weights_of(case))) / STEP


@pytest.mark.parametrize("engine", ["masked", "visible"])
@cases
def test_gradients_are_the_oracles_slopes_and_the_same_in_both(case: Case, engine: str) -> None:
    found, bound = torch_gradients(engine, case), tolerances.gradient(DTYPE, case)
    tolerances.assert_all_close(jax_gradients(engine, case), found, bound, engine)
    rng = np.random.default_rng(case.seed)
    for name, gradient in found.items():
        direction = rng.choice([-1.0, 1.0], gradient.shape)
        error = abs((gradient * direction).sum() - slope_along(case, name, direction))
        assert error <= bound * np.abs(gradient).sum(), name


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch warns of its own doing
def test_torch_compiles_them_in_one_graph() -> None:
    torch.compiler.reset()
    compiled = torch_gradients("visible", CASE, lambda f: torch.compile(f, fullgraph=True, backend="aot_eager"))
    bound = tolerances.gradient(DTYPE, CASE)
    tolerances.assert_all_close(compiled, torch_gradients("visible", CASE), bound, "compiled")


@pytest.mark.parametrize("engine", ["masked", "visible"])
def test_vmap_over_images(engine: str) -> None:
    """One image per call, masks of their own: as in a batch, for GRN sums over single images."""
    _, net = Subject("torch", engine).load(CASE.model, CASE.arrays, DTYPE)
    _, twin = Subject("jax", engine).load(CASE.model, CASE.arrays, DTYPE)

    def one(net: Any) -> Callable[[Any, Any], Any]:
        return lambda x, mask: net.features(x[None], mask=mask[None], engine=engine, visible=CASE.visible)

    found = torch.func.vmap(one(net))(torch.from_numpy(CASE.images), torch.from_numpy(CASE.mask))
    assert_maps([value[:, 0].detach().numpy() for value in found], CASE, [0, 1], "torch")
    with api.precision(DTYPE):
        found = jax.vmap(one(twin))(jnp.asarray(CASE.images), jnp.asarray(CASE.mask))
    assert_maps([np.asarray(value[:, 0]) for value in found], CASE, [0, 1], "jax")


@subjects
@pytest.mark.parametrize(
    ("args", "options", "line"),
    [
        (((2,),), {}, r"stages: \(2,\) is not a choice from 0 to 1, each once"),
        ((None,), {"layout": "CHW"}, "layout: 'CHW' is unknown; choose 'NHWC' or 'NCHW'"),
    ],
)
def test_what_there_is_not_is_refused(subject: Subject, args: Any, options: Any, line: str) -> None:
    with pytest.raises(spec.SpecError, match=f"^{line}$"):
        features(subject, CASE, *args, **options)


@pytest.mark.parametrize("backend", backends.installed())
def test_a_backbone_cannot_be_trained_without_a_loss(backend: str) -> None:
    trainer = backends.load(backend).Trainer(CASE.model, spec.Optimizer())  # which evaluates it
    with pytest.raises(spec.SpecError, match="it has no head"):
        trainer.step([{"images": CASE.images}], 0.1)
