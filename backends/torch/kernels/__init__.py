"""Kernels written for CUDA in Triton, each beside a plain form that computes the same."""

import importlib.util

import torch

from backends.protocol import BackendError

KERNELS = ("auto", "plain", "triton")


@torch.compiler.assume_constant_result
def use_triton(kernels: str, device: str) -> bool:
    """Whether the Triton kernels serve a type of device; BackendError where they are asked for and cannot.

    "auto": on CUDA, where Triton is installed.
    """
    if kernels not in KERNELS:
        raise BackendError(f"kernels: {kernels!r} is unknown; choose one of {', '.join(map(repr, KERNELS))}")
    installed = importlib.util.find_spec("triton") is not None
    runs = device == "cuda" and installed
    if kernels == "triton" and not runs:
        why = "Triton is not installed" if device == "cuda" else f"they do not run on {device}"
        raise BackendError(f"kernels: 'triton': {why}; give 'plain' or leave it at 'auto'")
    return runs and kernels != "plain"
