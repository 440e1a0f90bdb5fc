"""StableHLO: a file of jax.export, which jax.export.deserialize reads, for CPU, CUDA and TPU alike."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, export

import convert
from backends.jax.api import evaluating, flat, precision
from backends.jax.norm import at_least_float32
from backends.protocol import Dtype
from convert import Checkpoint
from export.signature import Signature
from export.verify import Program

PLATFORMS = ("cpu", "cuda", "tpu")


def program(checkpoint: Checkpoint, signature: Signature) -> Program:
    """The exact outputs: in float64, by the backend."""
    compute = _function(checkpoint, signature, "float64")

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        with precision("float64"):
            return [np.asarray(value) for value in compute(*inputs)]

    return call


def write(path: Path, checkpoint: Checkpoint, signature: Signature, dtype: str) -> None:
    """Write the program to a file."""
    n, h, w = export.symbolic_shape("n, h, w", constraints=["n >= 1", "h >= 1", "w >= 1"])
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in signature.shapes(n, h, w)]
    with precision(dtype):
        made = export.export(_function(checkpoint, signature, dtype), platforms=PLATFORMS)(*inputs)
    path.write_bytes(made.serialize())


def load(path: Path, signature: Signature) -> Program:
    """The program in a file."""
    made = export.deserialize(bytearray(path.read_bytes()))

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(value) for value in made.call(*inputs)]

    return call


def _function(checkpoint: Checkpoint, signature: Signature, dtype: str) -> "jax.stages.Wrapped":
    """The compiled function from inputs to outputs; its parameters, and what it computes in, are of the dtype."""
    wide: Dtype = "float64" if dtype == "float64" else "float32"
    m = convert.build(checkpoint, "jax", dtype=wide)
    with precision(dtype):
        graph, params = nnx.graphdef(m), {name: value.astype(dtype) for name, value in flat(m).items()}

    def compute(*inputs: Array) -> tuple[Array, ...]:
        return tuple(at_least_float32(value) for value in signature.compute(evaluating(graph, params), *inputs))

    return jax.jit(compute)
