"""Which top-level folder may import which, and that a violation would be seen."""

import sys
from pathlib import Path

import pytest

from tests.project.tree import ROOT, SHIPPED, imports, sources

FLOORS = {
    "spec": set(),
    "backends": {"spec"},
    "convert": {"spec", "backends"},
    "export": {"spec", "backends", "convert"},
    "train": {"spec", "backends", "convert"},
    "benchmarks": {"spec", "backends", "convert", "train"},
    "twinnext": {"spec", "backends", "convert", "export", "train", "benchmarks"},
}
OURS = {*SHIPPED, "parity_tests", "tests"}
FRAMEWORKS = {"torch": {"torch"}, "jax": {"jax", "flax", "optax", "jaxlib"}}


def violations(path: Path, source: str) -> set[str]:
    """The imports that a file of a shipped folder must not have."""
    floor = path.parts[0]
    names = imports(source)
    wrong = {name for name in names if _top(name) in OURS - FLOORS[floor] - {floor}}
    if floor == "spec":
        wrong |= {name for name in names if _top(name) not in sys.stdlib_module_names | {"spec"}}
    for twin, other in (("torch", "jax"), ("jax", "torch")):
        if path.parts[:2] == ("backends", twin):
            foreign = FRAMEWORKS[other]
            wrong |= {name for name in names if _top(name) in foreign or name.startswith(f"backends.{other}")}
    if floor in ("train", "backends") and path.parts[1] not in FRAMEWORKS:
        wrong |= {name for name in names if _top(name) in FRAMEWORKS["torch"] | FRAMEWORKS["jax"]}
    return wrong


def _top(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("folder", SHIPPED)
def test_every_folder_imports_from_floors_below(folder: str) -> None:
    found = {str(path): violations(path, (ROOT / path).read_text()) for path in sources(folder)}
    assert found
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("spec/model.py", "import numpy"),
        ("spec/model.py", "from backends import api"),
        ("backends/api.py", "import train.loop"),
        ("backends/api.py", "import torch"),
        ("backends/torch/steps.py", "def late():\n    import jax"),
        ("backends/torch/steps.py", "from backends.jax import steps"),
        ("backends/jax/steps.py", "from torch import nn"),
        ("convert/checkpoint.py", "from train import resume"),
        ("train/loop.py", "from parity_tests import tolerances"),
        ("train/loop.py", "import jax.numpy as jnp"),
        ("convert/build.py", "import twinnext"),
        ("convert/hub.py", "import export.write"),
        ("export/write.py", "from train import check"),
    ],
)
def test_a_planted_violation_is_seen(path: str, line: str) -> None:
    assert violations(Path(path), line)
