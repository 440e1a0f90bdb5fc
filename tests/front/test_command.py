"""`twinnext` and `python -m twinnext`: the sub-commands."""

import subprocess
import sys

import pytest

from twinnext.__main__ import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_sub_command_shows_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    assert command in capsys.readouterr().out


def test_arguments_and_status_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "show", "convnextv2_atto", "--image_size", "64"]) == 0
    assert capsys.readouterr().out.startswith("convnextv2_atto: 64 x 64 px")
    assert main(["convert", "inspect", "absent"]) == 2
    assert capsys.readouterr().err == "convert: absent: no such file or folder\n"


@pytest.mark.parametrize(
    ("words", "said"), [((), "COMMAND"), (("trian",), "did you mean 'train'?"), (("--bogus",), "COMMAND")]
)
def test_a_mistake_ends_in_one_line(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "twinnext", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("twinnext: ")
    assert said in done.stderr
