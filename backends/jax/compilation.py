"""Where compiled programs are kept from one run to the next, and how XLA compiles them."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from backends.api import make_writable
from backends.protocol import BackendError

VARIABLE = "JAX_COMPILATION_CACHE_DIR"

LARGEST = 8 << 30
"""Bytes of the folder. With a limit JAX locks it (by filelock); without one, a process may read a program that another
is still writing, and crash."""

GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False}
"""cuBLAS for every product: XLA would compile dozens of its own kernels for each, and find that cuBLAS is faster."""


CPU_ONCE = {"xla_backend_optimization_level": 0}
"""Compiles in half the time, for programs that run once: XLA's passes are the same, LLVM's optimiser is left out."""


def use_compilation_cache(where: str = "") -> str:
    """Keep compiled programs in a folder, or nowhere if `where` is "off"; return a line for the log.

    Default: JAX_COMPILATION_CACHE_DIR if set, else twinnext/jax in the user's cache folder, or nowhere
    if that cannot be written. BackendError if the folder that is asked for cannot be.
    """
    folder = "" if where == "off" else where or os.environ.get(VARIABLE) or _default()
    try:
        if folder:
            make_writable(folder)
        line = f"compiled programs are kept in {folder}" if folder else "compiled programs are not kept"
    except BackendError as error:
        if where:
            raise
        folder, line = "", f"compiled programs are not kept: {error}"
    if folder and importlib.util.find_spec("filelock"):
        _mark_entries(Path(folder))
        jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # jax reads the folder at its first compilation, and never again
    return line


def compiler_options(platform: str, *, once: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` on a platform, without those that XLA_FLAGS sets; `once`: the program will run once."""
    known: dict[str, dict[str, Any]] = {"gpu": GPU_OPTIONS, "cpu": CPU_ONCE if once else {}}
    return {
        name: value for name, value in known.get(platform, {}).items() if name not in os.environ.get("XLA_FLAGS", "")
    }


def _mark_entries(folder: Path) -> None:
    """Give a time of use to programs that were kept without a limit of size: jax keeps no other until all have one."""
    for program in folder.glob("*-cache"):
        mark = program.with_name(program.name.removesuffix("-cache") + "-atime")
        if not mark.exists():
            mark.write_bytes(program.stat().st_mtime_ns.to_bytes(8, "little"))


def _default() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return str(Path(base, "twinnext", "jax"))
