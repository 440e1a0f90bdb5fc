"""timm, which judges our exports in the tests and is a row of the benchmarks: its dense ConvNeXt V2."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _AnyAttribute(type):
    """A class of which every attribute is there, because timm's modules name some while they are imported."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Absent(ModuleType):
    """A module of torchvision that is not there: every name in it is an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyAttribute(name, (), {})


MODULES = ("ops", "ops.misc", "transforms", "transforms.functional", "datasets", "models", "models.feature_extraction")


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """timm imports torchvision, whose wheels do not go with every torch, and needs none of it for its models."""
    names = ["torchvision", *(f"torchvision.{name}" for name in MODULES)]
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        parent, _, child = name.rpartition(".")
        sys.modules[name] = _Absent(name)
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def timm() -> Any:
    """The module timm; ModuleNotFoundError where it is not installed."""
    with _without_torchvision():
        return importlib.import_module("timm")


def has_timm() -> bool:
    """Whether it can be imported here."""
    return all(importlib.util.find_spec(name) for name in ("timm", "torch"))
