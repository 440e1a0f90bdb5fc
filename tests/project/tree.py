"""The repository as git sees it."""

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHIPPED = ("twinnext", "spec", "backends", "convert", "export", "train", "benchmarks")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[Path]:
    """The files of the repository that are there, relative to its root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def sources(*folders: str) -> Iterator[Path]:
    """The tracked Python files of some first-level folders."""
    yield from (path for path in tracked() if path.suffix == ".py" and path.parts[0] in folders)


def imports(source: str) -> set[str]:
    """Every module that Python source imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module}
    return names
