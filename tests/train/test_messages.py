"""Every line that the command prints survives any name, and has one mechanism for suggestions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.tree import ROOT, sources
from train.__main__ import main


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
