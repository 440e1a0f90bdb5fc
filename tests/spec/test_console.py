"""Mistakes of one line, suggestions and tables."""

import io
import os
import re
import subprocess
import sys

import pytest

from spec import console


@pytest.fixture
def parser() -> console.Parser:
    parser = console.Parser("python -m tool")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("--epochs", type=int)
    commands.add_parser("verify").add_argument("--to", choices=["flax", "timm"])
    return parser


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trian", "tool: argument command: invalid choice: 'trian' \\(choose from .*\\); did you mean 'train'\\?"),
        ("train --epoch 5", "tool: unrecognized arguments: --epoch 5; did you mean '--epochs'\\?"),
        ("train --epoch=5", "tool: unrecognized arguments: --epoch=5; did you mean '--epochs'\\?"),
        ("verify --to tim", "tool verify: argument --to: invalid choice: 'tim' .*; did you mean 'timm'\\?"),
        ("train --xyz", "tool: unrecognized arguments: --xyz; python -m tool --help lists the arguments"),
        ("train --epochs x", "tool train: argument --epochs: invalid int value: 'x'; python -m tool train --help .*"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_argument(
    words: str, line: str, parser: console.Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(words.split())
    assert leaving.value.code == 2
    assert re.fullmatch(line + "\n", capsys.readouterr().err)


def test_no_name_in_a_message_breaks_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.fail("tool", "a\nb\u2028c\x1b[31m\udce9") == 2
    assert capsys.readouterr().err == "tool: a\\nb\\u2028c\\x1b[31m\\udce9\n"


def test_any_name_is_printed_in_a_terminal_that_lacks_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    console.escape_unprintable()
    print("é \udce9", file=out, flush=True)
    assert out.buffer.getvalue() == b"\\xe9 \\udce9\n"


def test_a_table_aligns_its_columns() -> None:
    rows = [("a", "b", "c"), ("long", "1", "22"), ("", "333", "")]
    assert console.table(rows) == "a     b    c\nlong  1    22\n      333"
    assert console.table(rows, "<>") == "a       b   c\nlong    1  22\n      333"


@pytest.mark.parametrize("command", [["-m", "spec", "list"], ["-m", "twinnext", "spec", "list"]])
def test_a_closed_pipe_ends_a_command_quietly(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (console.CLOSED_PIPE, "")
