"""Kernels written in Pallas for TPUs and for CUDA GPUs, each beside a plain form that computes the same."""

from typing import Literal

from backends.protocol import BackendError

KERNELS = ("auto", "plain", "pallas")

Kernels = Literal["tpu", "cuda"] | None
"""The platform, as XLA names it, whose kernels to use; None: the plain forms everywhere."""

PLATFORMS: dict[str, Kernels] = {"tpu": "tpu", "gpu": "cuda", "cuda": "cuda"}
"""By the name of a platform, as jax and XLA give it: whose kernels serve it."""


def choose_kernels(kernels: str, platform: str) -> Kernels:
    """Whose Pallas kernels serve a platform; BackendError where they are asked for and cannot.

    "auto": on TPUs and GPUs; XLA keeps to the plain forms on GPUs that are not CUDA's.
    """
    if kernels not in KERNELS:
        raise BackendError(f"kernels: {kernels!r} is unknown; choose one of {', '.join(map(repr, KERNELS))}")
    served = PLATFORMS.get(platform)
    if kernels == "pallas" and served is None:
        raise BackendError(f"kernels: 'pallas': they do not run on {platform}; give 'plain' or leave it at 'auto'")
    return None if kernels == "plain" else served
