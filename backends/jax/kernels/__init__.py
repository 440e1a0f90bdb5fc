"""Kernels written for TPUs in Pallas, each beside a plain form that computes the same."""

from backends.protocol import BackendError

KERNELS = ("auto", "plain", "pallas")


def use_pallas(kernels: str, platform: str) -> bool:
    """Whether the Pallas kernels serve a platform; BackendError where they are asked for and cannot.

    "auto": on TPUs.
    """
    if kernels not in KERNELS:
        raise BackendError(f"kernels: {kernels!r} is unknown; choose one of {', '.join(map(repr, KERNELS))}")
    runs = platform == "tpu"
    if kernels == "pallas" and not runs:
        raise BackendError(f"kernels: 'pallas': they do not run on {platform}; give 'plain' or leave it at 'auto'")
    return runs and kernels != "plain"
