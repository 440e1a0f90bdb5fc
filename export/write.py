"""Write a checkpoint as a program, and verify the file before it takes its name."""

from importlib import import_module, util
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import spec
from backends.protocol import ROUNDING
from convert import Checkpoint, ConvertError, surgery
from convert.arrays import DTYPES
from convert.files import replacing
from export.signature import Signature
from export.verify import Gap, Program, largest_gaps

LARGEST = 2_000_000_000
"""Bytes of parameters: the files are of protobuf and flatbuffers, which hold 2 GiB."""

KINDS = tuple(name for name in ROUNDING if name != "float64")
"""The dtypes that a program may compute in."""


class Module(Protocol):
    """The functions of the module of a target."""

    def program(self, checkpoint: Checkpoint, signature: Signature) -> Program:
        """The backend's program, in float64."""

    def write(self, path: Path, checkpoint: Checkpoint, signature: Signature, dtype: str) -> None:
        """Write the program that computes in a dtype; ConvertError where the target cannot."""

    def load(self, path: Path, signature: Signature) -> Program:
        """The program in a file, in the target's own runtime."""


class Target(NamedTuple):
    """A kind of file: its suffix, the module that writes and loads it, the packages which that needs, what runs it."""

    suffix: str
    module: str
    packages: tuple[str, ...]
    runtime: str


TARGETS = {
    "onnx": Target(".onnx", "export.onnx", ("torch", "onnxscript", "onnxruntime"), "onnxruntime"),
    "stablehlo": Target(".stablehlo", "export.stablehlo", ("jax", "flax", "optax", "flatbuffers"), "jax"),
    "torch": Target(".pt2", "export.torch", ("torch",), "torch"),
}


class Written(NamedTuple):
    """The runtime that has run a program, the gap of each of its outputs, and the size of its file."""

    runtime: str
    gaps: list[Gap]
    nbytes: int


def write(
    checkpoint: Checkpoint, path: Path, target: str, signature: Signature, dtype: str = "float32", force: bool = False
) -> Written:
    """Write the program of a checkpoint; ConvertError, and no file, if it cannot be, or is not the same function."""
    if path.suffix != TARGETS[target].suffix:
        raise ConvertError(f"{path}: the name of this kind of file ends in {TARGETS[target].suffix}")
    made, rounded = module(target), surgery.cast(checkpoint, dtype)
    name = TARGETS[target].runtime
    runtime = f"{name} {import_module(name).__version__}"
    _check_size(rounded, dtype)
    with replacing(path, force) as aside:
        made.write(aside, rounded, signature, dtype)
        exported = made.load(aside, signature)
        gaps = largest_gaps(checkpoint, signature, exported, lambda one: made.program(one, signature), dtype)
        wrong = [str(gap) for gap in gaps if not gap.ok]
        if wrong:
            raise ConvertError(f"{path}: not written: {runtime} computes another function: {'; '.join(wrong)}")
        return Written(runtime, gaps, aside.stat().st_size)


def module(target: str) -> Module:
    """The module of a target; ConvertError says how to install what it needs."""
    missing = [package for package in TARGETS[target].packages if util.find_spec(package) is None]
    if missing:
        extras = "jax,export" if target == "stablehlo" else "torch,export"
        raise ConvertError(f"--to {target}: {', '.join(missing)} not installed; pip install 'twinnext[{extras}]'")
    return cast(Module, import_module(TARGETS[target].module))


def _check_size(checkpoint: Checkpoint, dtype: str) -> None:
    """ConvertError if the parameters are too large for one file."""
    size = spec.count(checkpoint.model) * DTYPES[dtype].itemsize
    if size > LARGEST:
        raise ConvertError(
            f"--dtype {dtype}: {size:,} bytes of parameters, and a file holds {LARGEST:,}; give --dtype float16"
        )
