"""A mask is data: another one of the same K compiles nothing, in either framework, and breaks no graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backends
from parity_tests import tolerances
from parity_tests.strategies import CASES, Case
from parity_tests.subjects import Subject

CASE = replace(CASES["batch of three"], seed=11)
OTHER = replace(CASE, seed=12)
KEEPS_MORE = replace(CASE, visible=2)
ENGINES = pytest.mark.parametrize("engine", ["masked", "visible"])
TRACED = "/jax/core/compile/jaxpr_trace_duration"


def needs(framework: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(framework not in backends.installed(), reason=f"{framework} is not installed")


@contextmanager
def traces() -> Iterator[list[str]]:
    """What JAX traces inside the block; empty when everything was compiled before."""
    import jax

    seen: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == TRACED:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@needs("jax")
@ENGINES
def test_jax_compiles_once_for_all_masks(engine: str) -> None:
    subject = Subject("jax", engine)
    for case in (CASE, OTHER):
        assert (case.mask != CASE.mask).any() == (case is OTHER)
        with traces() as seen:
            subject.forward(case, "float64")
            subject.gradients(case, "float64")
        if case is OTHER:
            assert not seen


@needs("jax")
def test_a_trace_would_be_seen() -> None:
    with traces() as seen:
        Subject("jax", "visible").forward(replace(KEEPS_MORE, model=replace(CASE.model, norm_target=False)), "float64")
    assert seen


def torch_step(engine: str) -> tuple[Any, Any]:
    """A function of a case, and its compiled twin: the loss and its gradients, in one graph without breaks."""
    import torch

    _, net = Subject("torch", engine).load(CASE.model, CASE.arrays, "float64")

    def loss(images: Any, mask: Any, visible: int) -> Any:
        return net(images, mask, engine=engine, visible=visible)["loss"]

    compiled = torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")

    def step(function: Any, case: Case) -> dict[str, np.ndarray]:
        value = function(torch.from_numpy(case.images), torch.from_numpy(case.mask), case.visible)
        names = [name for name, _ in net.named_parameters()]
        slopes = torch.autograd.grad(value, list(net.parameters()))
        found = dict(zip(names, slopes, strict=True)) | {"loss": value.detach()}
        return {name: array.numpy() for name, array in found.items()}

    return lambda case: step(loss, case), lambda case: step(compiled, case)


@needs("torch")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch warns of its own doing
@ENGINES
def test_torch_compiles_whole_and_once_for_all_masks(engine: str) -> None:
    import torch

    torch.compiler.reset()
    plain, compiled = torch_step(engine)
    compiled(CASE)
    with torch.compiler.set_stance("fail_on_recompile"):
        found = compiled(OTHER)
        with pytest.raises(RuntimeError, match="recompile"):
            compiled(KEEPS_MORE)
    tolerances.assert_all_close(found, plain(OTHER), tolerances.gradient("float64", CASE), f"torch {engine} compiled")
