"""pyproject.toml is true: versions, scripts, and every dependency declared and used."""

import re
import sys
from importlib.metadata import distribution, packages_distributions

from tests.project.tree import ROOT, SHIPPED, imports, pyproject, sources
from twinnext import __version__

EVERYWHERE = (*SHIPPED, "parity_tests", "tests", "experiments", "examples", "tools")

# Asked for by name and never imported: the TPU's compiler, what torch.onnx and jax.export import, tools of the tests,
# and this distribution's own extras.
UNIMPORTED = {"libtpu", "flatbuffers", "onnxscript", "mypy", "ruff", "pytest-xdist", "twinnext"}


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def _declared() -> set[str]:
    project = pyproject()["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {_name(requirement) for requirements in lists for requirement in requirements}


def _imported(*folders: str) -> set[str]:
    """Distributions behind the third-party imports of some folders."""
    tops = {name.split(".")[0] for path in sources(*folders) for name in imports((ROOT / path).read_text())}
    known = packages_distributions()
    foreign = tops - sys.stdlib_module_names - {*EVERYWHERE}
    return {known[top][0].lower().replace("_", "-") if top in known else top for top in foreign}


def test_what_is_imported_is_declared() -> None:
    unlisted = {"timm"}  # see the Makefile
    assert _imported(*EVERYWHERE) - _declared() - unlisted == set()


def test_what_is_declared_is_imported() -> None:
    assert _declared() - _imported(*EVERYWHERE) - UNIMPORTED == set()


def test_all_brings_every_extra_that_a_machine_by_itself_can_use() -> None:
    elsewhere = {"jax-cuda", "tpu", "aot", "wandb"}  # an accelerator, its compiler, an account
    extras = pyproject()["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.search(r"\[(.*)\]", everything)[1].split(","))  # type: ignore[index]
    assert named == set(extras) - elsewhere - {"all"}


def test_the_wheel_holds_the_packages_and_no_tests() -> None:
    packages = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert tuple(packages) == SHIPPED
    assert all((ROOT / package / "__init__.py").is_file() for package in packages)


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_the_installed_distribution_is_this_one() -> None:
    installed = distribution("twinnext")
    assert installed.version == __version__
    scripts = {entry.name: entry for entry in installed.entry_points if entry.group == "console_scripts"}
    assert callable(scripts["convert"].load())


def test_torch_is_new_enough_to_read_untrusted_files() -> None:
    """Before 2.10, torch.load(weights_only=True) could be made to corrupt memory (CVE-2026-24747)."""
    (requirement,) = pyproject()["project"]["optional-dependencies"]["torch"]
    assert requirement.startswith("torch>=2.10,")
