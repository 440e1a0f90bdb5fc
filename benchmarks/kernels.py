"""Registers, spills and shared memory of the Triton kernels, compiled for a GPU that need not be here."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

CAPABILITY = 90  # H100 and H200
SIDES = (8, 4, 2, 1)  # of a patch, at the four stages
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


class Resources(NamedTuple):
    """What one thread, or for shared memory one block, of a kernel takes."""

    registers: int
    spill_bytes: int
    shared_bytes: int


def resources() -> dict[str, Resources]:
    """Name of a kernel, the side of its patches and its dtype -> what it takes on the GPU."""
    return {
        f"depthwise {name}, side {side}, {dtype}": compile_for(name, side, short)
        for name in ("conv", "weight gradient")
        for side in SIDES
        for dtype, short in DTYPES.items()
    }


def compile_for(name: str, side: int, dtype: str, k: int = 7) -> Resources:
    """A kernel as it is compiled for patches of side x side sites; dtype in Triton's letters."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from backends.torch.kernels import depthwise

    kernel, tilings = {
        "conv": (depthwise.conv_kernel, depthwise.CONV),
        "weight gradient": (depthwise.gradient_kernel, depthwise.GRADIENT),
    }[name]
    tiling = tilings.get(side, depthwise.OTHER)
    constants = {"channels": 1024 // side, "side": side, "k": k, "BIAS": True, "DOUBLE": False}
    constants |= {"ROWS": tiling.rows, "TAPS": tiling.taps, "CHANNELS": tiling.channels}
    types = {"halo": "*i64", "parts": "*fp32", **dict.fromkeys(("sites", "blocks", "turns"), "i32")}
    names = kernel.arg_names
    fixed = {param.name for param in kernel.params if param.is_constexpr}
    signature = {arg: "constexpr" if arg in fixed else types.get(arg, f"*{dtype}") for arg in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, arg in enumerate(names) if signature[arg].startswith("*")}
    source = ASTSource(kernel, signature, {arg: value for arg, value in constants.items() if arg in fixed}, aligned)
    target = GPUTarget("cuda", CAPABILITY, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": 1, "enable_fp_fusion": True})
    return _read(compiled.asm["cubin"])


def _read(cubin: bytes) -> Resources:
    """By the tool that comes with Triton; a spill shows as stack or local memory."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return Resources(found["REG"], found["STACK"] + found["LOCAL"], found["SHARED"])
