"""What is written by hand for a device, each beside the plain form that judges it and stands in for it."""

import os


def asked_for() -> bool:
    """Whether TWINNEXT_TRITON=1 asks for the kernels: no GPU has run them yet, so the plain forms serve CUDA too."""
    return os.environ.get("TWINNEXT_TRITON") == "1"
