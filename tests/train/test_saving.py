"""Background writes: one at a time, failures reported, checkpoints complete or absent."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.protocol import State
from convert.containers import safetensors
from convert.containers.run import PARTS
from tests.project.tree import ROOT
from train.checkpoints import store
from train.checkpoints.checkpointer import AsyncCheckpointer
from train.errors import TrainError
from train.logs.append_file import AppendFile

SIZE = 50_000


def state(fill: float) -> State:
    """A state whose files are larger than a page."""
    return State(*({"weight": np.full(SIZE, fill, np.float32)} for _ in PARTS), t=int(fill))


def test_a_run_continues_while_its_state_is_written() -> None:
    go_on, written = threading.Event(), []
    with AsyncCheckpointer(print) as saver:
        saver.start(lambda: (go_on.wait(), written.append(1)))
        saver.poll()
        assert not written
        go_on.set()
    assert written == [1]


def test_a_save_waits_for_the_one_before() -> None:
    go_on, order = threading.Event(), []
    with AsyncCheckpointer(print) as saver:
        saver.start(lambda: (go_on.wait(), order.append("first")))
        threading.Timer(0.05, go_on.set).start()
        saver.wait()
        order.append("exported")
        saver.start(lambda: order.append("second"))
    assert order == ["first", "exported", "second"]


def _fails() -> None:
    raise TrainError("step-00000001: cannot be written: No space left on device")


def test_a_failed_save_is_one_line_and_the_next_one_counts() -> None:
    said: list[str] = []
    with AsyncCheckpointer(said.append) as saver:
        saver.start(_fails)
        saver.start(lambda: None)
    (line,) = said
    assert line.startswith("checkpoint not saved: step-00000001: cannot be written: No space left")
    assert "\n" not in line


def test_a_failed_last_save_is_an_error() -> None:
    said: list[str] = []
    with (
        pytest.raises(TrainError, match="No space left on device; older checkpoints are intact"),
        AsyncCheckpointer(said.append) as s,
    ):
        s.start(_fails)
    assert said == []


def test_another_error_is_not_hidden_by_that_of_a_save() -> None:
    said: list[str] = []

    def interrupted() -> None:
        with AsyncCheckpointer(said.append) as saver:
            saver.start(lambda: 1 / 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert said == ["checkpoint not saved: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize("part", PARTS)
def test_what_is_not_finite_is_never_saved(tmp_path: Path, part: str) -> None:
    broken = state(2)
    getattr(broken, part)["weight"][7] = np.nan
    line = f"step-00000002: not written: {part} weight: 1 of its {SIZE} values are NaN or infinite"
    with pytest.raises(TrainError, match=line):
        store.save(tmp_path, 2, broken, {}, keep=1)
    assert list(tmp_path.iterdir()) == []


def test_pieces_that_do_not_fit_are_kept_and_reported_once() -> None:
    said: list[str] = []
    file = AppendFile(Path("/dev/full"), said.append)
    file.write(b"one\n")
    file.write(b"two\n")
    assert file.pending == b"one\ntwo\n"
    assert said == ["/dev/full: cannot be written: No space left on device; kept in memory until it can"]
    file.stream.close()


class Cramped(io.FileIO):
    """A file on a disk with some bytes of room."""

    room = 6

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = super().write(bytes(data)[: self.room])
        self.room -= taken
        return taken


def test_no_piece_is_ever_written_in_part(tmp_path: Path) -> None:
    said: list[str] = []
    file = AppendFile(tmp_path / "lines", said.append)
    file.stream.close()
    file.stream = cramped = Cramped(tmp_path / "lines", "a")
    for piece in (b"one\n", b"two\n", b"three\n"):
        file.write(piece)
        assert (tmp_path / "lines").read_bytes() == b"one\n"
    cramped.room = 100
    file.close()
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\nthree\n"
    assert len(said) == 1


DEATHS = """
import os, sys
from pathlib import Path
os.fsync = lambda descriptor: None  # a killed process loses nothing that the disk does not have
from tests.train.test_saving import die_at, outcome
print(*(outcome(Path(sys.argv[1]) / str(event), event) for event in range(int(sys.argv[2]))))
"""


def die_at(event: int) -> None:
    """Kill this process at the event-th call of a function by which a save changes the disk.

    A write is interrupted in its middle: the disk then holds half of the file.
    """
    left = [event]

    def tick() -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            tick()
            return call(*args, **options)

        return wrapped

    def in_halves(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Path, *args: Any) -> Any:
            written = write(file, *args)
            data = file.read_bytes()
            file.write_bytes(data[: len(data) // 2])
            tick()
            file.write_bytes(data)
            tick()
            return written

        return wrapped

    safetensors.write_arrays = in_halves(safetensors.write_arrays)
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
        setattr(os, name, mortal(getattr(os, name)))


def outcome(root: Path, event: int) -> str:
    """What is found after a save of step 2 over step 1 was killed: the step, and whether it is whole."""
    store.save(root, 1, state(1), {}, keep=1)
    child = os.fork()
    if not child:
        die_at(event)
        store.save(root, 2, state(2), {}, keep=1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    found = store.newest(root, print)
    assert found is not None
    for part in PARTS:
        assert (getattr(found.state, part)["weight"] == found.step).all()
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    return f"{found.step}{'' if os.WIFSIGNALED(status) else '!'}"


def test_a_kill_at_any_moment_of_a_write_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEATHS, str(tmp_path), "40"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {"1", "2", "2!"}  # before its name, after it, and not at all: there are no more events
    assert found == sorted(found)
    assert found.count("1") > 10
