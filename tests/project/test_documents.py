"""README and the other documents: commands parse, links and names resolve, examples run, tables are computed."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import _parser as benchmarks_parser
from convert.__main__ import _parser as convert_parser
from export.__main__ import _parser as export_parser
from spec.__main__ import _parser as spec_parser
from tests.project.tree import ROOT, tracked
from tools import tables
from train.config import cli
from train.errors import TrainError

DOCUMENTS = [path for path in tracked() if path.suffix == ".md"]
TEXTS = {path: (ROOT / path).read_text(encoding="utf-8") for path in DOCUMENTS}
README = TEXTS[Path("README.md")]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")

COMMAND = re.compile(
    r"(?:^|`|'|\| |    |  )(?:python -m|twinnext) (train|convert|export|spec|benchmarks)( [^`'\n#;]*)?", re.MULTILINE
)
PARSERS = {"convert": convert_parser, "export": export_parser, "spec": spec_parser, "benchmarks": benchmarks_parser}

# Folders of one machine, spelt so that this file does not name one.
MACHINE = re.compile(rf"(?<![\w./])/({'|'.join(('work', 'tmp', 'root', 'home', 'Users', 'farm'))})/\w")


def words(*paths: Path) -> int:
    """The number of words, separated by white space; the rules of tables do not count."""
    return sum(bool(re.search(r"\w", word)) for path in paths for word in TEXTS[path].split())


def test_the_documents_are_short() -> None:
    docs = [path for path in DOCUMENTS if path.parts[0] == "docs"]
    assert words(Path("README.md")) <= 900
    assert words(Path("README.md"), Path("CONTRIBUTING.md"), *docs) <= 7_000


def test_tables_are_those_of_the_code() -> None:
    for name in tables.PAGES:
        assert TEXTS[Path(name)] == tables.filled(TEXTS[Path(name)]), f"{name} is out of date: make tables"
    named = set(re.findall(r"<!-- (\w+) -->", "".join(TEXTS[Path(name)] for name in tables.PAGES)))
    assert named == set(tables.TABLES)


def test_a_table_that_is_out_of_date_is_seen() -> None:
    page = TEXTS[Path("docs/recipes.md")]
    changed = page.replace("| 4096 |", "| 4095 |", 1)
    assert changed != page
    assert tables.filled(changed) == page


def commands() -> Iterator[tuple[str, str, str]]:
    """Every documented command with arguments: its page, its program, its arguments."""
    for path, text in TEXTS.items():
        for program, arguments in COMMAND.findall(text):
            if arguments.strip() and "..." not in arguments and "--help" not in arguments:
                yield str(path), program, arguments.strip()


def parse(program: str, arguments: str) -> None:
    if program == "train":
        cli.parse([word for word in shlex.split(arguments) if word != "--show_recipe"])
    else:
        PARSERS[program]().parse_args(shlex.split(arguments))


@pytest.mark.parametrize(("page", "program", "arguments"), list(commands()))
def test_every_documented_command_parses(page: str, program: str, arguments: str) -> None:
    parse(program, arguments)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(TrainError):
        parse("train", "--data_pth DATA")
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        parse("benchmarks", "engine")
    assert len(list(commands())) > 30


def test_every_make_command_of_the_documents_is_a_target() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for text in TEXTS.values()
        for words in re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+)", text, re.MULTILINE)
        for target in words.split()
    }
    assert {"demo", "test"} <= named <= targets


def test_every_module_that_the_documents_run_exists() -> None:
    modules = {name for text in TEXTS.values() for name in re.findall(r"python -m (\w+(?:\.\w+)*)", text)}
    assert {"experiments.few_labels", "train"} <= modules
    for module in modules - {"pip", "torch"}:
        path = ROOT.joinpath(*module.split("."))
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), module


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in LINK.findall(TEXTS[path]) if not (ROOT / path.parent / link).exists()] == []


def test_folders_and_files_that_the_documents_name_exist() -> None:
    folders = (
        "spec|backends|export|parity_tests|tests|train|convert|benchmarks|examples|experiments|twinnext|tools|docs"
    )
    for path, text in TEXTS.items():
        named = set(re.findall(rf"`((?:{folders})/[\w/.]*)`", text))
        assert [name for name in named if not (ROOT / name).exists()] == [], path


def test_tests_that_documents_name_exist() -> None:
    named = {m for text in TEXTS.values() for m in re.findall(r"`((?:tests|parity_tests)/[\w/]+\.py)::(\w+)`", text)}
    assert len(named) > 20
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []


def test_the_library_example_prints_the_same_loss_twice() -> None:
    example = EXAMPLES[0]
    answer = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    losses = dict(line.split() for line in answer.stdout.splitlines())
    assert set(losses) == {"torch", "jax"}
    assert abs(float(losses["torch"]) - float(losses["jax"])) < 2**-20 * float(losses["torch"])


def test_the_example_of_features_runs_with_a_file_of_the_published_code() -> None:
    loads, sizes = re.compile(r'"convnextv2_atto_1k_224_fcmae.pt"'), "(1, 224, 224, 3), stages=(1, 2, 3)"
    assert sizes in EXAMPLES[1]
    golden = loads.sub('"parity_tests/golden/official_fcmae.pth"', EXAMPLES[1])
    code = "import torch\nimport twinnext as tn\n" + golden
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(answer.stdout.splitlines()) == 3


def test_no_file_names_a_folder_of_one_machine() -> None:
    texts = [path for path in tracked() if path.suffix in {".py", ".md", ".toml", ".sh", ".yml", ""}]
    assert [str(path) for path in texts if MACHINE.search((ROOT / path).read_text())] == []


def test_such_a_folder_would_be_seen() -> None:
    assert MACHINE.search("cd " + "/".join(("", "home", "someone")))
    assert not MACHINE.search("see https://example.org/home/page or " + "/".join(("runs", "work", "x")))


def test_definitions_that_the_walkthrough_names_are_in_the_files_it_names() -> None:
    named = re.findall(r"`([\w/]+\.py)` `(\w+)(?:\.(\w+))?`", TEXTS[Path("docs/walkthrough.md")])
    assert len(named) > 20
    for file, name, member in named:
        source = (ROOT / file).read_text()
        assert re.search(rf"^(class|def) {name}\b|^{name}\b.* = ", source, re.MULTILINE), f"{file}: {name}"
        assert not member or f"    def {member}(" in source, f"{file}: {name}.{member}"
