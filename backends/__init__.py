"""The two builds of the spec, behind one framework-neutral interface: numpy in, numpy out.

`load("torch")` and `load("jax")` give modules with the same public functions (see
`api.py`); asking for one never imports the other.
"""

import importlib
import importlib.util
from typing import cast

from backends.protocol import Backend, BackendError

NAMES = ("torch", "jax")
_NEEDS = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}


def installed() -> tuple[str, ...]:
    """The names of the backends whose frameworks are installed, without importing any."""
    return tuple(name for name in NAMES if not _missing(name))


def load(name: str) -> Backend:
    """The backend `name`, "torch" or "jax"; BackendError says how to install a missing framework."""
    if name not in NAMES:
        raise BackendError(f"backend: {name!r} is unknown; choose 'torch' or 'jax'")
    missing = _missing(name)
    if missing:
        raise BackendError(f"backend {name!r}: {', '.join(missing)} not installed; pip install 'twinnext[{name}]'")
    return cast(Backend, importlib.import_module(f"backends.{name}"))


def _missing(name: str) -> list[str]:
    return [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None]
