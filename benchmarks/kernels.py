"""Registers, spills and shared memory of the Triton kernels, compiled for a GPU that need not be here."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

CAPABILITY = 90  # H100 and H200
SIDES = (8, 4, 2, 1)  # of a patch, at the four stages
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


class Resources(NamedTuple):
    """What one thread, or for shared memory one block, of a kernel takes."""

    registers: int
    spill_bytes: int
    shared_bytes: int


def resources() -> dict[str, Resources]:
    """Name of a kernel, where it matters the side of its patches, and its dtype -> what it takes on the GPU."""
    from backends.torch.kernels import depthwise

    by_side = {"conv": depthwise.conv_kernel, "weight gradient": depthwise.gradient_kernel}
    return {
        f"depthwise {name}, side {side}, {dtype}": compile_for(kernel, side, short)
        for name, kernel in by_side.items()
        for side in SIDES
        for dtype, short in DTYPES.items()
    }


def compile_for(kernel: Any, side: int, dtype: str, k: int = 7) -> Resources:
    """The kernel as it is compiled for patches of side x side sites; dtype in Triton's letters."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from backends.torch.kernels import depthwise

    constants = {"side": side, "reach": side + k - 1, "k": k, "width": triton.next_power_of_2(k), "turns": 19}
    constants |= {"SITES": depthwise.SITES, "CHANNELS": depthwise.CHANNELS, "DOUBLE": False}
    numbers = dict.fromkeys(("sites", "channels"), "i32")
    types = {"halo": "*i64", "parts": "*fp32", **numbers}
    names = kernel.arg_names
    fixed = {param.name for param in kernel.params if param.is_constexpr}
    signature = {name: "constexpr" if name in fixed else types.get(name, f"*{dtype}") for name in names}
    # As a launch finds them: aligned pointers and a multiple of 16 channels.
    aligned = [(i,) for i, name in enumerate(names) if name == "channels" or signature[name].startswith("*")]
    source = ASTSource(
        kernel,
        signature,
        {name: value for name, value in constants.items() if name in fixed},
        {at: [["tt.divisibility", 16]] for at in aligned},
    )
    target = GPUTarget("cuda", CAPABILITY, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": depthwise.WARPS, "enable_fp_fusion": True})
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
