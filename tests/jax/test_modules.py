"""What the tools of JAX and flax do with the modules: summaries, transforms, and steps outside a model."""

from typing import Any

import numpy as np
import pytest

import spec
from parity_tests import tolerances
from parity_tests.strategies import CASES, Case, ratio

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from backends.jax import build, gradients, set_arrays  # noqa: E402
from backends.jax.layout import to_canonical  # noqa: E402

SMALL = spec.fcmae(
    depths=(2,), dims=(8,), stem_stride=2, decoder_dim=8, image_size=(2, 8), mask_ratio=ratio(4, 2), decoder_depth=1
)
CASE = CASES["dead channels"]
engines = pytest.mark.parametrize("engine", ["masked", "visible"])


@pytest.mark.parametrize("engine", ["masked", "visible", None])
def test_tabulate_lists_the_modules(engine: str | None) -> None:
    """Equal neighbours among the blocks run as one scan, and are listed as the first of them."""
    mask = None if engine is None else np.array([[[0, 1, 1, 0]]], np.uint8)
    options = {} if engine is None else {"engine": engine, "visible": 2}
    net = build(SMALL)
    table = nnx.tabulate(
        net, jnp.zeros((1, 2, 8, 3)), mask, console_kwargs={"force_terminal": False, "width": 200}, **options
    )
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in table.split("\n") if line.count("│") > 4}
    listed = {name: kind for name, kind in rows.items() if name and not name.endswith(("run", "encode"))}
    assert f"Total Parameters: {spec.count(SMALL):,} " in table
    expected = {
        ".".join(map(str, path)).replace(".", "/"): type(module).__name__
        for path, module in nnx.iter_modules(net)
        if path and type(module) is not nnx.Module
    }
    assert listed == {name: kind for name, kind in expected.items() if "encoder/stages/0/1" not in name}


def params_of(case: Case) -> tuple[Any, Any]:
    net = build(case.model, dtype="float64")
    set_arrays(net, case.arrays)
    return nnx.split(net)


@engines
def test_vmap_gives_the_gradients_of_each_image(engine: str) -> None:
    with jax.enable_x64(True):
        graph, params = params_of(CASE)

        def loss(params: Any, image: Any, mask: Any) -> Any:
            net = nnx.merge(graph, params)
            return net(image[None], mask[None], engine=engine, visible=CASE.visible)["loss"]

        found = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))(params, CASE.images, CASE.mask)
        named = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(found)}
        table = spec.parameters(CASE.model)
        for n in range(CASE.count):
            own = CASE.images[n : n + 1], CASE.mask[n : n + 1]
            expected = gradients(nnx.merge(graph, params), *own, engine=engine)
            arrays = {name: to_canonical(table[name], value[n]) for name, value in named.items()}
            tolerances.assert_all_close(arrays, expected, tolerances.gradient("float64", CASE), f"{engine}, image {n}")
