"""GELU, GRN and the linear layers around them in CUDA's passes: GELU at every bfloat16, interpreted, and in a model."""

from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import backends
from parity_tests import tolerances
from parity_tests.strategies import CASES, Case
from parity_tests.subjects import true_gradients, truth

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import pallas as pl

from backends.jax import activation, build, set_arrays
from backends.jax.kernels import activation_gpu
from backends.jax.layout import to_canonical
from backends.jax.norm import gelu, respond, safe_norm
from spec import EPS, parameters

CASE = CASES["equal widths"]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels run on CPU, in memory that holds NaN until it is written; but for the assembly."""
    monkeypatch.setattr(pl, "pallas_call", partial(pl.pallas_call, interpret=True))
    monkeypatch.setattr(activation_gpu, "exp2_fused", activation_gpu.exp2)
    monkeypatch.setattr(activation, "map_and_sum", activation_gpu.map_and_sum_on_cuda)


def every_bfloat16() -> np.ndarray:
    """All finite values that are no denormals, in float32."""
    values = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    return values[np.isfinite(values) & ((values == 0) | (np.abs(values) > np.finfo(np.float32).tiny))]


@jax.jit
def value_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """GELU and its derivative as the passes compute them, in float32."""
    tiles, one = [x, jnp.ones_like(x)], jnp.ones_like(x[0])
    (value,), _ = activation._response(activation_gpu.exp2, tiles[:1], [one, 0 * one])
    (slope,), _ = activation._gradient(activation_gpu.exp2, tiles, [one, 0 * one])
    return value, slope


def assert_gelu() -> None:
    x = every_bfloat16()
    value, slope = map(np.float64, value_and_slope(jnp.asarray(x)))
    with jax.enable_x64(True):
        wide = jnp.asarray(x, jnp.float64)
        both = jax.vmap(jax.value_and_grad(partial(jax.nn.gelu, approximate=False)))
        true_value, true_slope = map(np.asarray, jax.jit(both)(wide))
    allowed = tolerances.GELU * np.maximum(np.abs(true_value), tolerances.GELU)
    assert (np.abs(value - true_value) <= allowed).all()
    assert (np.abs(slope - true_slope) <= tolerances.GELU).all()


def test_every_value_and_slope() -> None:
    assert_gelu()


def test_another_polynomial_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_gpu, "TAIL", (*activation_gpu.TAIL[:-1], -1.0004))
    jax.clear_caches()
    with pytest.raises(AssertionError):
        assert_gelu()
    jax.clear_caches()


def composed(x: Any, expand: Any, grn: Any, project: Any, scope: str) -> jax.Array:
    """The same steps one by one."""
    h = gelu(x @ expand[0] + expand[1])
    return respond(h, safe_norm(h, (0, 1) if scope == "batch" else (1,)), *grn, EPS) @ project[0] + project[1]


def fused(x: Any, expand: Any, grn: Any, project: Any, scope: str) -> jax.Array:
    return activation.gelu_grn(x.astype(jnp.bfloat16), expand, grn, project, EPS, scope)


def value_and_gradients(function: Any, scope: str) -> dict[str, np.ndarray]:
    """Of 3 images of 11 sites, 130 channels inside: neither fills a tile."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(ml_dtypes.bfloat16).astype(np.float32)  # noqa: E731
    pairs = (draw(12, 130) / 4, draw(130)), (draw(130), draw(130)), (draw(130, 12) / 8, draw(12))
    x, direction = draw(3, 11, 12), draw(3, 11, 12)

    def both(direction: Any, *given: Any) -> Any:
        y, pullback = jax.vjp(lambda *given: function(*given, scope).astype(jnp.float32), *given)
        return y, pullback(direction)

    found = map(np.asarray, jax.tree.leaves(jax.jit(both)(direction, x, *pairs)))
    names = ("value", "x", "expand", "expand bias", "gamma", "beta", "project", "project bias")
    return dict(zip(names, found, strict=True))


def assert_agree(scope: str) -> None:
    found, expected = value_and_gradients(fused, scope), value_and_gradients(composed, scope)
    tolerances.assert_all_close(found, expected, tolerances.gradient("bfloat16", CASE), scope)


@pytest.mark.parametrize("scope", ["image", "batch", "grid"])
def test_the_plain_form_agrees_with_the_steps(scope: str) -> None:
    assert_agree(scope)


@pytest.mark.usefixtures("interpreted")
def test_the_kernels_agree_with_the_steps() -> None:
    assert_agree("image")


@pytest.mark.usefixtures("interpreted")
def test_a_sum_that_misses_sites_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl, "cdiv", lambda a, b: max(1, a // b))
    with pytest.raises(AssertionError):
        assert_agree("image")


@pytest.mark.usefixtures("interpreted")
def test_a_batch_of_batches() -> None:
    """`vmap` adds an axis to the grid of a kernel."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 7)), jnp.bfloat16)
    sums = partial(activation.map_and_sum, activation._squares)
    each = jax.jit(lambda x: sums([x], [])[0])
    assert np.array_equal(jax.jit(jax.vmap(each))(x), jnp.stack([each(one) for one in x]))


def gradients(case: Case) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs and gradients of a model compiled for CUDA's kernels, whose plain forms run."""
    net = build(case.model, dtype="bfloat16")
    set_arrays(net, case.arrays)
    graph, params = nnx.split(net)
    images = jnp.asarray(case.images, jnp.float32)

    def loss(params: Any) -> Any:
        out = nnx.merge(graph, params)(images, case.mask, engine="visible", visible=case.visible, platform="gpu")
        return out["loss"], out

    found, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    table = parameters(case.model)
    named = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(found)}
    return out, {name: to_canonical(table[name], value) for name, value in named.items()}


def assert_obeys(case: Case) -> None:
    out, found = gradients(case)
    expected = {name: truth(case)[name] for name in out}
    tolerances.assert_all_close(out, expected, tolerances.forward("bfloat16", case), "model")
    tolerances.assert_all_close(found, true_gradients(case), tolerances.gradient("bfloat16", case), "model, gradient")


def test_a_model_with_them_obeys_the_oracle() -> None:
    assert_obeys(CASE)


def test_a_model_with_another_response_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_slopes", lambda *given: ([given[1][0]], activation._squares(*given)[1] * 2))
    with pytest.raises((AssertionError, ValueError)):
        assert_obeys(CASE)


def test_they_lower_for_cuda(h200: None) -> None:
    """Two passes forward and two backward; Triton's own part of the compiler needs a GPU's build of jaxlib."""
    shapes = (4, 76, 40), ((40, 160), (160,)), ((160,), (160,)), ((160, 40), (40,))
    x, *pairs = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, "float32"), shapes, is_leaf=lambda s: isinstance(s[0], int)
    )
    loss = lambda *given: fused(*given, "image").astype(jnp.float32).sum()  # noqa: E731
    lowered = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3))).trace(x, *pairs).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("__gpu$xla.gpu.triton") == 4
