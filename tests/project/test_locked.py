"""The list of exact versions is complete, hashed, within pyproject.toml's ranges, and what the Makefile installs."""

import re
import subprocess

from packaging.requirements import Requirement

from tests.project.tree import ROOT, pyproject

LOCKED = re.findall(r"^([\w.-]+)==(\S+)(.*?)(?=^\S|\Z)", (ROOT / "requirements/locked.txt").read_text(), re.M | re.S)
VERSIONS = {name: version for name, version, _ in LOCKED}


def test_every_package_has_one_version_and_hashes() -> None:
    assert len(VERSIONS) == len(LOCKED) > 90
    assert [name for name, _, rest in LOCKED if "--hash=sha256:" not in rest] == []


def test_the_list_holds_all_that_is_declared_within_its_range() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    chosen = re.search(r"\[(.*)\]", everything)[1].split(",")  # type: ignore[index]
    declared = [Requirement(one) for one in (*project["dependencies"], *(r for name in chosen for r in extras[name]))]
    outside = [one for one in declared if not one.specifier.contains(VERSIONS.get(one.name.lower(), "0"))]
    assert [str(one) for one in outside if one.name != "torch"] == []


def test_torch_is_named_exactly_and_within_its_range() -> None:
    (version,) = re.findall(r"^TORCH\s*:= (\d[\d.]+)$", (ROOT / "Makefile").read_text(), re.M)
    (torch,) = pyproject()["project"]["optional-dependencies"]["torch"]
    assert Requirement(torch).specifier.contains(version)


def test_the_set_up_of_make_test_asks_for_exact_versions_only() -> None:
    command = ["make", "--dry-run", "--always-make", "VENV=absent", "absent/ready"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = re.findall(r"pip install (?:--quiet |--no-warn-conflicts )*(.*)", plan)
    assert len(installs) == 3
    pinned = ("--require-hashes -r requirements/locked.txt", "torch==", "--no-deps --no-build-isolation --editable .")
    assert [line for line, exact in zip(installs, pinned, strict=True) if exact not in line] == []
