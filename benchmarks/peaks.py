"""Peak performance of devices: published for accelerators, measured on this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.errors import BenchmarkError


class Peak(NamedTuple):
    """Peak arithmetic and memory bandwidth of a device, and the source of the figures."""

    tflops: float
    gbps: float
    source: str


PUBLISHED = {
    "h100": Peak(989, 3350, "NVIDIA's data sheet of the SXM5 card: half its figure with sparsity"),
    "h200": Peak(989, 4800, "NVIDIA's data sheet of the SXM card: half its figure with sparsity"),
    "v4": Peak(275, 1200, "Google's documentation of Cloud TPU v4, per chip"),
    "v5e": Peak(197, 819, "Google's documentation of Cloud TPU v5e, per chip"),
    "v5p": Peak(459, 2765, "Google's documentation of Cloud TPU v5p, per chip"),
    "v6e": Peak(918, 1638, "Google's documentation of Cloud TPU v6e, per chip"),
}
"""Dense matrix products in bfloat16; real programs stay below."""

MEASURED = "measured"
NAMES = (MEASURED, *PUBLISHED)
REPEATS = 15


def find(
    name: str, dtype: str, device: str | None = None, tflops: float | None = None, gbps: float | None = None
) -> Peak:
    """The peak from `tflops` and `gbps` if given, else by name; BenchmarkError if the name has none for this dtype."""
    if tflops is not None and gbps is not None:
        return Peak(tflops, gbps, "the command line")
    if tflops is not None or gbps is not None:
        raise BenchmarkError("--tflops and --gbps: give both, or neither and --peak")
    if name == MEASURED:
        return measure(dtype, device)
    if dtype != "bfloat16":
        raise BenchmarkError(
            f"--peak {name}: is for bfloat16, not {dtype}; add --dtype bfloat16, or give --tflops and --gbps"
        )
    return PUBLISHED[name]


def measure(dtype: str, device: str | None = None) -> Peak:
    """The fastest of a few large matrix products and copies, timed in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peaks", dtype, *([device] if device else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchmarkError("--peak measured: the measurement failed; its message is above")
    return Peak(*json.loads(done.stdout))


def main(dtype: str, device: str | None = None) -> None:
    """Print the peak as JSON, measured by torch if it is installed and by JAX otherwise."""
    try:
        multiply, copy, side, values, width = _torch(dtype, device)
    except ModuleNotFoundError:
        multiply, copy, side, values, width = _jax(dtype)
    tflops = 2 * side**3 / _fastest(multiply) / 1e12
    gbps = 2 * values * width / _fastest(copy) / 1e9  # read and written
    print(
        json.dumps([tflops, gbps, f"a product of {side} x {side} matrices and a copy of {values * width / 1e6:.0f} MB"])
    )


Timed = tuple[Callable[[], object], Callable[[], object], int, int, int]


def _torch(dtype: str, device: str | None) -> Timed:
    import torch

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    side, values = (2048, 2**26) if where == "cpu" else (8192, 2**30)
    kind = getattr(torch, dtype)
    a, b = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
    source = torch.ones(values, dtype=kind, device=where)
    target = torch.empty_like(source)

    def finished(value: torch.Tensor) -> float:
        return float(value.view(-1)[-1])  # waits for the device

    return lambda: finished(a @ b), lambda: finished(target.copy_(source)), side, values, kind.itemsize


def _jax(dtype: str) -> Timed:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    side, values = (2048, 2**26) if jax.default_backend() == "cpu" else (8192, 2**30)
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    multiply, step = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1, donate_argnums=0)  # in place: no fresh pages
    held = [jnp.ones(values, dtype)]

    def copy() -> None:
        held[0] = jax.block_until_ready(step(held[0]))

    return lambda: jax.block_until_ready(multiply(a, b)), copy, side, values, a.dtype.itemsize


def _fastest(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
