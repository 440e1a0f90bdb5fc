"""The deterministic costs of a small model, compared with a committed baseline.

Wall time drifts with the machine; FLOPs, bytes, operations and memory do not. A change of the code
that moves them is either intended, and updates the baseline, or a regression.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import backends
import spec
from benchmarks import kernels, tables
from benchmarks.worker import inputs

BASELINE = Path(__file__).with_name("baseline.json")
SLACK = 0.005
"""Relative change that is reported. Compilers' figures differ by less between processors."""

JOB = {"image_size": 128, "mask_ratio": 0.6, "batch_size": 2}
MODEL = spec.fcmae(depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), decoder_dim=64, image_size=128)

Figures = dict[str, dict[str, int]]


def versions() -> dict[str, str]:
    """The versions of the packages that the figures depend on."""
    return tables.versions(("torch", "jax", "jaxlib", "triton"))


def measurable() -> list[str]:
    """The installed backends, and "triton" if its kernels can be compiled."""
    return [*backends.installed(), *(["triton"] if {"torch", "triton"} <= versions().keys() else [])]


def measure(backend: str) -> Figures:
    """Row -> figures: the FCMAE loss and its gradient per engine, or the compiled kernels for "triton"."""
    if backend == "triton":
        return {name: found._asdict() for name, found in kernels.resources().items()}
    one = {"torch": _torch, "jax": _jax}[backend]
    return {f"{backend} {engine}": one(engine) for engine in ("masked", "visible")}


def moved(found: Figures, baseline: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One line for every figure that differs from its baseline, in either direction."""
    lines = []
    for row, figures in found.items():
        for name, value in figures.items():
            before = baseline.get(row, {}).get(name)
            if before is None:
                lines.append(f"{row}: {name} has no baseline, found {value:,}")
            elif abs(value - before) > SLACK * abs(before):
                change = f"{value / before - 1:+.1%}" if before else "from 0"
                lines.append(f"{row}: {name} {before:,} -> {value:,} ({change})")
    return lines


def read() -> dict[str, Any]:
    """{"versions", "figures"} of the baseline."""
    document: dict[str, Any] = json.loads(BASELINE.read_text(encoding="utf-8"))
    return document


def write(found: Figures) -> None:
    """Make `found` the baseline."""
    document = {"versions": versions(), "figures": found}
    BASELINE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _torch(engine: str) -> dict[str, int]:
    """Dispatched FLOPs and operations, and the bytes saved for the backward pass."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += not func.is_view
            return func(*args, **(kwargs or {}))

    net, (_, batch) = backends.load("torch").build(MODEL), inputs(JOB, MODEL)
    visible = spec.visible_patches(MODEL)
    images, mask = torch.from_numpy(batch["images"]), torch.from_numpy(batch["mask"])
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        flops = stack.enter_context(FlopCounterMode(display=False))
        operations = stack.enter_context(Operations())
        net(images, mask, engine=engine, visible=visible, loss_only=True)["loss"].backward()
    return {"flops": flops.get_total_flops(), "operations": operations.count, "saved_bytes": sum(saved.values())}


def _jax(engine: str) -> dict[str, int]:
    """XLA's own figures for the gradient on CPU."""
    import jax
    from flax import nnx

    from backends.jax import api

    net, (_, batch) = api.build(MODEL, device="cpu"), inputs(JOB, MODEL)
    graph, visible = nnx.graphdef(net), spec.visible_patches(MODEL)

    def loss(params: Any, images: Any, mask: Any) -> Any:
        return api.bind(graph, params)(images, mask, engine=engine, visible=visible, loss_only=True)["loss"]

    with jax.default_device(jax.devices("cpu")[0]):
        compiled = jax.jit(jax.grad(loss)).lower(api.flat(net), batch["images"], batch["mask"]).compile()
    costs: Any = compiled.cost_analysis()
    sizes: Any = compiled.memory_analysis()
    return {
        "flops": int(costs["flops"]),
        "bytes": int(costs["bytes accessed"]),
        "temporary_bytes": int(sizes.temp_size_in_bytes),
    }
