"""Checkpoints of runs: bit-exact, complete or absent, checked before use."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import convert
from backends.protocol import State
from convert import ConvertError, files
from convert.containers import run
from tests.convert.samples import trained
from tests.convert.test_training_state import AUTOENCODER


def state(seed: int = 0, dtype: type = np.float32) -> State:
    """Arrays of several ranks, transposed views among them, as converters make."""
    draw = np.random.default_rng(seed)

    def arrays() -> dict[str, np.ndarray]:
        conv = draw.normal(size=(3, 3, 2, 4)).astype(dtype).transpose(3, 2, 0, 1)
        linear = np.asfortranarray(draw.normal(size=(5, 6)).astype(dtype))
        return {"stem.weight": conv, "head.weight": linear, "head.bias": draw.normal(size=5).astype(dtype)}

    return State(arrays(), arrays(), arrays(), arrays(), t=7)


def assert_same(found: State, expected: State) -> None:
    assert found.t == expected.t
    for part in run.PARTS:
        read, written = getattr(found, part), getattr(expected, part)
        assert list(read) == list(written)
        for name, array in written.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_reads_back_bit_for_bit_views_included(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "checkpoints" / run.name_of(7)
    run.save(path, 7, state(dtype=dtype), {"seed": 3})
    found = run.load(path)
    assert (path.name, found.step, found.meta) == ("step-00000007", 7, {"seed": 3})
    assert_same(found.state, state(dtype=dtype))
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_a_state_without_an_ema_has_no_file_for_it(tmp_path: Path) -> None:
    bare = state()
    bare.ema = {}
    run.save(tmp_path / "x", 7, bare, {})
    assert not (tmp_path / "x" / "ema.safetensors").exists()
    assert_same(run.load(tmp_path / "x").state, bare)


def test_checkpoints_are_listed_newest_first(tmp_path: Path) -> None:
    for step in (9, 100_000_000, 10):
        (tmp_path / run.name_of(step)).mkdir()
    (tmp_path / ".writing-step-00000011.x").mkdir()
    assert [step for step, _ in run.steps(tmp_path)] == [100_000_000, 10, 9]
    assert run.steps(tmp_path / "absent") == []


def test_one_that_is_there_is_replaced(tmp_path: Path) -> None:
    for seed in (0, 1):
        run.save(tmp_path / "x", 7, state(seed), {})
    assert_same(run.load(tmp_path / "x").state, state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_value_that_is_not_finite_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    run.save(tmp_path / "x", 7, state(0), {})
    broken = state(1)
    broken.nu["head.bias"][2] = np.inf
    with pytest.raises(ConvertError, match=r"nu head.bias: 1 of its 5 values are NaN or infinite"):
        run.save(tmp_path / "x", 8, broken, {})
    assert_same(run.load(tmp_path / "x").state, state(0))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def _change(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(change((path / name).read_bytes()))


def _from_the_future(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "version": 99}).encode()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_change("mu.safetensors", lambda data: data[:-3] + bytes([data[-3] ^ 16]) + data[-2:]), "its checksum is not"),
        (_change("nu.safetensors", lambda data: data[:-1]), "bytes, the manifest says"),
        (lambda path: (path / "params.safetensors").unlink(), "params.safetensors: cannot be read"),
        (_change("manifest.json", lambda data: data[:-20]), "no readable manifest.json"),
        (lambda path: (path / "manifest.json").unlink(), "no readable manifest.json"),
        (_change("manifest.json", _from_the_future), "format version 99, this program reads 1"),
    ],
)
def test_damage_is_named_in_one_line(damage: Callable[[Path], object], line: str, tmp_path: Path) -> None:
    run.save(tmp_path / "x", 7, state(), {})
    damage(tmp_path / "x")
    with pytest.raises(run.Damaged, match=line) as caught:
        run.load(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_a_run_is_its_newest_checkpoint_even_beside_weights_that_it_began_with(tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "run")
    later = trained(AUTOENCODER, seed=9)
    convert.save(later, tmp_path / "x")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert convert.load(tmp_path / "run").optimizer is not None  # no checkpoint yet: the weights
    (tmp_path / "x").rename(tmp_path / "run" / "checkpoints" / run.name_of(8))
    found = convert.load(tmp_path / "run").arrays["pred.bias"]
    np.testing.assert_array_equal(found, later.arrays["pred.bias"])


KILLED = """
import os, signal, sys
from pathlib import Path
from convert import files
with files.atomic(Path(sys.argv[1])) as aside:
    aside.write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_what_was_there_and_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "x").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_discarded_folder_loses_its_name_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # interrupted
    files.discard(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [".deleting-x"]


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("first", "second, é"):
        files.write_text(tmp_path / "x", text)
        assert (tmp_path / "x").read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["x"]
