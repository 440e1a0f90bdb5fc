"""Every line that the command prints survives any name, and has one mechanism for suggestions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import ROOT, sources
from tests.train.images import tree
from train.__main__ import main
from train.config import cli


def test_suggestions_have_one_home() -> None:
    assert [path for path in sources("train") if "get_close_matches" in (ROOT / path).read_text(encoding="utf-8")] == []


def test_a_mistake_with_a_newline_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data_path", f"{tmp_path}/a\nb"]) == 2
    said = capsys.readouterr().err
    assert "a\\nb: no such folder" in said
    assert said.count("\n") == 1


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "train", "--data_path", f"{tmp_path}/caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr
    assert b"caf\\xe9: no such folder" in done.stderr


@pytest.mark.parametrize("name", [b"caf\xe9", "日本 \U0001f600".encode(), b"two\nlines"])
def test_a_run_survives_any_name_on_any_terminal(name: bytes, tmp_path: Path) -> None:
    """A folder, a class and a broken image of this name; the terminal knows ASCII alone."""
    label = os.fsdecode(name)
    images = tree(tmp_path / label, classes=1, each=12)
    (images / "c0").rename(images / label)
    (images / label / f"{label}.jpg").write_bytes(b"\xff\xd8\xffbroken")
    tree(images, classes=1, each=12)
    words = [sys.executable, "-m", "tests.train.fake", str(images), str(tmp_path / "run"), "--max_steps", "4"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert b"report: " in done.stdout
    assert cli.parse(["--config", str(tmp_path / "run" / "config.toml")]).data.data_path == str(images)
    assert main(["--config", str(tmp_path / "run" / "config.toml"), "--max_steps", "0"]) == 2
