"""Whatever a file is: one clear line, exit code 2, no output, and no code of its own ever runs."""

from pathlib import Path

import pytest

from convert.__main__ import main
from tests.convert.hostile import Make, cases

CASES = cases()


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_hostile_file_ends_in_one_line(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bait, output = tmp_path / "bait", tmp_path / "out.safetensors"
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in", bait)
    code = main(["translate", str(path), "--to", "ours", "-o", str(output)])
    said = capsys.readouterr()
    assert code == 2, said.out
    assert said.out == ""
    assert said.err.startswith("convert: ")
    assert said.err.count("\n") == 1, said.err
    assert len(said.err) < 1200
    assert not bait.exists()
    assert sorted(child.name for child in tmp_path.iterdir()) == ["in"]
