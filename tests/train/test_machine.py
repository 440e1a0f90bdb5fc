"""The description of the machine, with and without GPUs, and on systems with little information."""

import os
from pathlib import Path

import pytest

from train.logs import machine


def test_processor_cores_and_gpus_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Fast 9000\n\nprocessor\t: 1\nmodel name\t: Fast 9000\n"
    )
    for number in range(3):
        folder = tmp_path / "gpus" / str(number)
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t Board {min(number, 1)}\nIRQ: \t 12\n")
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "gpus")
    described = machine.describe()
    assert described.startswith(f"Fast 9000, {os.cpu_count()} cores, ")
    assert "1 x Board 0" in described
    assert described.endswith("2 x Board 1")
    assert machine.describe(16) == f"{described}; 16 devices share an update"


def test_a_system_that_says_little_is_described_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUS", tmp_path / "absent")
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "absent")
    described = machine.describe()
    assert f"{os.cpu_count()} cores" in described
    assert not described.startswith(",")
