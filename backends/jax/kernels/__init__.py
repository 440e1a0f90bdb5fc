"""Kernels written in Pallas for TPUs and for CUDA GPUs, each with a plain implementation that computes the same.

Those for CUDA are compiled by Triton. jax 0.11.2 deprecates that in favour of Mosaic GPU, and 0.12.0 still has it.
"""

from typing import Literal

from backends.protocol import BackendError

KERNELS = ("auto", "plain", "pallas")

Kernels = Literal["tpu", "cuda"] | None
"""The platform, as XLA names it, whose kernels to use; None: the plain forms everywhere."""

PLATFORMS: dict[str, Kernels] = {"tpu": "tpu", "gpu": "cuda", "cuda": "cuda"}
"""By the name of a platform, as jax and XLA give it: whose kernels serve it."""


def choose_kernels(kernels: str, platform: str) -> Kernels:
    """The platform whose Pallas kernels to use; BackendError if they are requested and cannot run.

    "auto": on TPUs and GPUs; XLA keeps to the plain forms on GPUs that are not CUDA's.
    """
    if kernels not in KERNELS:
        raise BackendError(f"kernels: {kernels!r} is unknown; choose one of {', '.join(map(repr, KERNELS))}")
    served = PLATFORMS.get(platform)
    if kernels == "pallas" and served is None:
        raise BackendError(f"kernels: 'pallas': they do not run on {platform}; give 'plain' or 'auto'")
    return None if kernels == "plain" else served
