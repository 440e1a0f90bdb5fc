"""timm's dense ConvNeXt V2: a row of the benchmarks, and a reference for our exports in the tests."""

import importlib
import sys
from importlib.util import find_spec
from typing import Any
from unittest.mock import MagicMock

TORCHVISION = (
    "",
    ".ops",
    ".ops.misc",
    ".transforms",
    ".transforms.functional",
    ".datasets",
    ".models",
    ".models.feature_extraction",
)


def timm() -> Any:
    """The module timm; ModuleNotFoundError where it is not installed.

    timm imports torchvision and its models use none of it. torchvision has no wheel for every torch,
    so where it is missing a mock stands in while timm is imported.
    """
    missing = [] if find_spec("torchvision") else [f"torchvision{name}" for name in TORCHVISION]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        return importlib.import_module("timm")
    finally:
        for name in missing:
            del sys.modules[name]


def has_timm() -> bool:
    """Whether timm can be imported here."""
    return all(find_spec(name) for name in ("timm", "torch"))
