"""README and its fellows are true: commands exist, links lead somewhere, examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import ROOT, tracked

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
README = (ROOT / "README.md").read_text()

# Folders of one machine, spelt so that this file does not name one.
MACHINE = re.compile(rf"(?<![\w./])/({'|'.join(('work', 'tmp', 'root', 'home', 'Users', 'farm'))})/\w")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_make_command_of_the_documents_is_a_target() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for words in re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+)", (ROOT / path).read_text(), re.MULTILINE)
        for target in words.split()
    }
    assert {"demo", "test"} <= named <= targets


def test_every_module_that_readme_runs_is_there() -> None:
    modules = set(re.findall(r"python -m (\w+(?:\.\w+)*)", README))
    assert {"spec", "train"} <= modules
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), module


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert [link for link in LINK.findall(text) if not (ROOT / path.parent / link).exists()] == []


def test_folders_and_files_that_readme_names_are_there() -> None:
    named = set(re.findall(r"`((?:spec|backends|parity_tests|tests|train|convert)/[\w/.]*)`", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_tests_that_documents_name_are_there() -> None:
    texts = [(ROOT / path).read_text() for path in DOCUMENTS]
    named = {match for text in texts for match in re.findall(r"`((?:tests|parity_tests)/[\w/]+\.py)::(\w+)`", text)}
    assert len(named) > 20
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []


def test_the_library_example_prints_the_same_loss_twice() -> None:
    answer = subprocess.run([sys.executable, "-c", _blocks("python")[0]], capture_output=True, text=True, check=True)
    losses = dict(line.split() for line in answer.stdout.splitlines())
    assert set(losses) == {"torch", "jax"}
    assert abs(float(losses["torch"]) - float(losses["jax"])) < 2**-20 * float(losses["torch"])


def test_no_file_names_a_folder_of_one_machine() -> None:
    texts = [path for path in tracked() if path.suffix in {".py", ".md", ".toml", ".sh", ".yml", ""}]
    assert [str(path) for path in texts if MACHINE.search((ROOT / path).read_text())] == []


def test_such_a_folder_would_be_seen() -> None:
    assert MACHINE.search("cd " + "/".join(("", "home", "someone")))
    assert not MACHINE.search("see https://example.org/home/page or " + "/".join(("runs", "work", "x")))
