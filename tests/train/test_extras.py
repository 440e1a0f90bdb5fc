"""Packages of extras are imported where they are used: the command explains itself without them."""

import re
import subprocess
import sys
import tomllib

import pytest

from tests.project.tree import ROOT
from train.errors import EXTRAS

BLOCKED = """
import sys
from importlib.machinery import PathFinder
missing = set(sys.argv[1].split(","))
class Blocked(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blocked
from train.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
EVERY = [module for modules in EXTRAS.values() for module in modules]
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "orbax-checkpoint": "orbax"}
"""Package -> its module, where they differ."""


def command(missing: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-c", BLOCKED, ",".join(missing), *words]
    return subprocess.run(python, cwd=ROOT, capture_output=True, text=True, timeout=120)


def without(*extras: str) -> list[str]:
    return [module for extra, modules in EXTRAS.items() if extra not in extras for module in modules]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_help_needs_one_framework_which_is_the_default(framework: str) -> None:
    assert "--backend torch|jax" in command(without(framework), "--help").stdout
    shown = command(without(framework), "--show_recipe")
    assert re.search(rf"^backend +{framework} +default$", shown.stdout, re.MULTILINE), shown


@pytest.mark.parametrize(
    ("missing", "words", "line"),
    [
        (EVERY, "", "(PIL|tqdm|tensorboard|simplejpeg) is not installed; pip install 'twinnext[train]'"),
        (without("train"), "--data_path digits", "backend 'torch': torch not installed; pip install 'twinnext[torch]'"),
        (["sklearn"], "--task probe --data_path digits --knn_k 1 --train_labels 10", "sklearn is not installed; "),
    ],
)
def test_a_missing_package_is_one_line(missing: list[str], words: str, line: str, tmp_path: object) -> None:
    done = command(missing, *words.split(), "--output_dir", str(tmp_path))
    assert done.returncode == 2
    pattern = re.escape(line).replace(r"\(", "(").replace(r"\)", ")").replace(r"\|", "|")
    assert re.match(f"train: {pattern}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def test_the_table_is_that_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        named = [re.split(r"[<>=;\[ ]", package)[0] for package in extras[extra]]
        assert sorted(MODULES.get(name, name) for name in named) == sorted(modules), extra
