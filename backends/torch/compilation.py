"""Where compiled programs are kept from one run to the next."""

import os
from pathlib import Path

import torch

from backends.api import make_writable

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def use_compilation_cache(where: str = "") -> str:
    """Keep what torch.compile and Triton compile in a folder, nowhere if it is "off"; return a line for the log.

    Default: TORCHINDUCTOR_CACHE_DIR if set, else where torch keeps it, in the temporary folder; no line then.
    BackendError if the folder that is asked for cannot be written.
    """
    if where == "off":
        torch.compiler.config.force_disable_caches = True
        return "compiled programs are not kept"
    if where:
        make_writable(where)
        os.environ |= {VARIABLE: where, "TRITON_CACHE_DIR": str(Path(where, "triton"))}
        return f"compiled programs are kept in {where}"
    return ""
