"""Kernels written for CUDA in Triton, each with a plain implementation that computes the same."""

import importlib.util

import torch

from backends.protocol import BackendError

KERNELS = ("auto", "plain", "triton")


@torch.compiler.assume_constant_result
def use_triton(kernels: str, device: str) -> bool:
    """Whether to use the Triton kernels on a type of device; BackendError if they are requested and cannot run.

    "auto": on CUDA, where Triton is installed.
    """
    if kernels not in KERNELS:
        raise BackendError(f"kernels: {kernels!r} is unknown; choose one of {', '.join(map(repr, KERNELS))}")
    installed = importlib.util.find_spec("triton") is not None
    runs = on_cuda(device) and installed
    if kernels == "triton" and not runs:
        where = "ROCm" if device == "cuda" else device  # which torch calls cuda, too
        why = "Triton is not installed" if on_cuda(device) else f"they do not run on {where}"
        raise BackendError(f"kernels: 'triton': {why}; give 'plain' or 'auto'")
    return runs and kernels != "plain"


def on_cuda(device: str) -> bool:
    """Whether a type of device is NVIDIA's: torch calls AMD's "cuda", too."""
    return device == "cuda" and torch.version.hip is None
