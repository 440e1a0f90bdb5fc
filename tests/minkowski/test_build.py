"""`make minkowski` reports in one line what is missing, and compiles once per environment."""

import os
from pathlib import Path

import pytest

from tools import minkowski


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that would have run."""
    run: list[str] = []
    monkeypatch.setattr(minkowski, "_run", lambda *command, env=None: run.append(" ".join(command)))
    return run


def test_a_machine_without_openblas_gets_one_line(
    cache: Path, commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minkowski, "loads", lambda: False)
    monkeypatch.setattr(minkowski, "_links_openblas", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert minkowski.main() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "libopenblas-dev" in said
    assert commands == []


def test_root_installs_it(cache: Path, commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minkowski, "_links_openblas", lambda: any("libopenblas-dev" in command for command in commands))
    monkeypatch.setattr(minkowski.shutil, "which", lambda name: name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    minkowski._need_openblas()
    assert commands[-1].startswith("apt-get install")


def test_a_wheel_is_compiled_once_for_one_torch(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        folder.mkdir(parents=True)
        (folder / f"minkowskiengine-{minkowski.VERSION}-any.whl").touch()

    monkeypatch.setattr(minkowski, "_need_openblas", lambda: None)
    monkeypatch.setattr(minkowski, "_build", build)
    for torch in ("2.13.0+cpu", "2.13.0+cpu", "2.14.0"):
        monkeypatch.setattr(minkowski, "_version", lambda package, torch=torch: torch)
        assert minkowski.wheel().exists()
    assert [folder.name.split("-")[2] for folder in built] == ["torch2.13.0+cpu", "torch2.14.0"]
    assert all(folder.is_relative_to(cache) for folder in built)


def test_what_loads_is_left_alone(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minkowski, "loads", lambda: True)
    assert minkowski.main() == 0
    assert commands == []
    assert minkowski.VERSION in capsys.readouterr().out
