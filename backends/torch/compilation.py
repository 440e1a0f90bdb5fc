"""What torch compiles, and where compiled programs are kept from one run to the next."""

import os
import warnings
from pathlib import Path

import torch

import spec
from backends.api import make_writable
from backends.torch.model import FCMAE, Model
from backends.torch.steps import Dense, LayerNorm, Residual
from spec.model import KERNEL

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

KINDS = 64
"""Variants that dynamo keeps of what is compiled here: stages, decoder and head, with and without drop path and
gradients. Its own limit is 8."""

OPTIONS = {"realize_opcount_threshold": 200}
"""Of inductor. At its own 30 it writes what is between GRN's gradient and GELU's to memory, and reads it back."""


def use_compilation_cache(where: str = "") -> str:
    """Keep what torch.compile and Triton compile in a folder, nowhere if it is "off"; return a line for the log.

    Default: TORCHINDUCTOR_CACHE_DIR if set, else where torch keeps it, in the temporary folder; no line then.
    BackendError if the folder that is asked for cannot be written.
    """
    if where == "off":
        torch.compiler.config.force_disable_caches = True
        return "compiled programs are not kept (of Triton's kernels, Triton keeps its own)"
    if where:
        make_writable(where)
        os.environ |= {VARIABLE: where, "TRITON_CACHE_DIR": str(Path(where, "triton"))}
        return f"compiled programs are kept in {where}"
    return ""


def compile_kernels(encoder: spec.Encoder, dtype: torch.dtype) -> None:
    """Start to compile the Triton kernels that an encoder's blocks will need, in threads."""
    from backends.torch.kernels import depthwise  # needs Triton

    sides = [encoder.patch_size // info.stride for info in encoder.feature_info()]
    depthwise.compile_ahead(zip(sides, encoder.dims, strict=True), KERNEL, dtype)


def compile_steps(net: Model) -> None:
    """Compile the blocks, norms, dense layers and the loss of a model, each where it is called.

    Blocks of the same shapes share what is compiled: seconds, where the model as one graph takes minutes.
    """
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # dynamo asks for it
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # float32 products are exact on purpose
    torch._dynamo.config.recompile_limit = max(KINDS, torch._dynamo.config.recompile_limit)
    torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True  # kept with what is compiled
    modules = dict(net.named_modules())
    for step in [modules[name] for name in net.names if name in modules]:
        if isinstance(step, Residual | LayerNorm | Dense):
            step.compile(fullgraph=True, dynamic=False, options=OPTIONS)
    if isinstance(net, FCMAE):
        net.masked_loss = torch.compile(net.masked_loss, fullgraph=True, dynamic=False)
        net.removed_loss = torch.compile(net.removed_loss, fullgraph=True, dynamic=False)
