"""The spec stands on the standard library alone."""

import json
import subprocess
import sys

LIST_MODULES = "import json, sys; before = set(sys.modules); {}; print(json.dumps(sorted(set(sys.modules) - before)))"


def _packages_behind(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter loads for a statement."""
    command = [sys.executable, "-c", LIST_MODULES.format(statement)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return {module.split(".")[0] for module in json.loads(answer.stdout)}


def test_the_spec_and_its_command_import_the_standard_library_only() -> None:
    loaded = _packages_behind("import spec, spec.__main__")
    assert "spec" in loaded
    assert loaded - {"spec"} <= sys.stdlib_module_names


def test_the_test_above_would_see_an_import() -> None:
    assert not _packages_behind("import numpy") <= sys.stdlib_module_names
