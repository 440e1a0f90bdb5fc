"""What a gradient costs a TPU that is not here, masked against visible, by the figures of its compiler.

Of the whole training step of a command, on any number of chips, `python -m train --aot` says the same.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import spec

if TYPE_CHECKING:
    from backends.jax.aot import Cost

ENGINES = ("masked", "visible")


def measure(
    model: spec.FCMAE, topology: str, batch_size: int, engine: str, *, part: str, dtype: Any, remat: bool
) -> "Cost":
    """Compile the gradient for the first device of a topology; BackendError where that is unknown or too small."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from backends.jax import aot, api
    from backends.jax.layout import shapes
    from backends.jax.steps import Call

    device = aot.devices(topology)[0]
    shape = partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device))
    graph = api.graph(model, dtype)
    params = {name: shape(size, jnp.float32) for name, size in shapes(model).items()}
    images = shape((batch_size, *model.image_size, model.encoder.in_chans), dtype)
    mask = shape((batch_size, *model.grid), jnp.uint8)
    visible = spec.visible_patches(model)

    def loss(params: Any, images: Any, mask: Any) -> Any:
        net, options = api.bind(graph, params), {"engine": engine, "visible": visible}
        if part == "fcmae":
            return net(images, mask, platform=device.platform, remat=remat, **options)["loss"]
        call = Call(platform=device.platform, remat=remat)
        x, space = net.encode(images, mask, call, **options)
        return space.grid(x).astype(jnp.float32).sum()

    with api.precision(dtype):
        return aot.price([(1, jax.jit(jax.grad(loss)).trace(params, images, mask))], device.platform)


def table(model: spec.FCMAE, name: str, topology: str, batch_size: int, **options: Any) -> str:
    """A row for each engine, and visible's as a share of masked's; one that does not fit is said to."""
    from backends.protocol import BackendError

    lines = [
        f"{name}, the gradient of the {options['part']} on one device of {topology}, {batch_size} images of"
        f" {model.image_size[0]} px, {options['dtype']}",
        "",
        f"{'engine':<10}{'TFLOP':>9}{'GB moved':>10}{'GB temporary':>14}{'GB held':>9}{'s to compile':>14}",
    ]
    rows = {}
    for engine in ENGINES:
        try:
            rows[engine] = cost = measure(model, topology, batch_size, engine, **options)
        except BackendError as error:
            if "does not fit" not in str(error):
                raise
            lines.append(f"{engine:<10}{error}")
        else:
            figures = (cost.flops / 1e12, cost.bytes / 1e9, cost.temporary / 1e9, cost.held / 1e9)
            cells = (
                f"{value:>{width}.{3 - (width > 9)}f}" for value, width in zip(figures, (9, 10, 14, 9), strict=True)
            )
            lines.append(f"{engine:<10}{''.join(cells)}{cost.seconds:>14.0f}")
    if len(rows) == len(ENGINES):
        masked, visible = (rows[engine] for engine in ENGINES)
        shares = (visible.flops / masked.flops, visible.bytes / masked.bytes, visible.temporary / masked.temporary)
        lines.append(f"{'share':<10}" + "".join(f"{s:>{w - 1}.2f}x" for s, w in zip(shares, (9, 10, 14), strict=True)))
    if any(cost.loops for cost in rows.values()):
        lines += ["", "Blocks run as loops: their FLOPs count as often as they run, their bytes once."]
    return "\n".join(lines)
