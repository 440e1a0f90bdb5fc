"""timm's augmentations, loaded from its files: the package itself would import torchvision."""

import importlib.util
from bisect import bisect_right
from importlib.metadata import distribution
from types import ModuleType

import pytest


def module(name: str) -> ModuleType:
    """timm.data.<name>, alone; skips where timm is not installed."""
    try:
        path = distribution("timm").locate_file(f"timm/data/{name}.py")
    except ModuleNotFoundError:
        pytest.skip("timm is not installed")
    spec = importlib.util.spec_from_file_location(f"timm_{name}", str(path))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def kolmogorov(one: list[float], other: list[float]) -> float:
    """The Kolmogorov-Smirnov distance of two samples, scaled: above 1.95 once in a thousand draws."""
    points = sorted({*one, *other})
    here, there = sorted(one), sorted(other)
    gaps = [abs(bisect_right(here, x) / len(here) - bisect_right(there, x) / len(there)) for x in points]
    return max(gaps) * (len(one) * len(other) / (len(one) + len(other))) ** 0.5
