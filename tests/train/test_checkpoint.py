"""Checkpoints: bit-exact, complete or absent, checked before use."""

import json
from pathlib import Path

import numpy as np
import pytest

from backends.protocol import State
from convert.containers import run as run_format
from convert.containers.run import MANIFEST, PARTS, Damaged
from train.checkpoints import store
from train.errors import TrainError


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
    for part in PARTS:
        read, written = getattr(found, part), getattr(expected, part)
        assert read.keys() == written.keys()
        for name, array in written.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_reads_back_bit_for_bit_views_included(tmp_path: Path, dtype: type) -> None:
    written = state(dtype=dtype)
    path = store.save(tmp_path, 7, written, {"seed": 3}, keep=3)
    found = run_format.load(path)
    assert path.name == "step-00000007"
    assert (found.step, found.meta) == (7, {"seed": 3})
    assert_same(found.state, written)


def test_a_state_without_an_ema_has_no_file_for_it(tmp_path: Path) -> None:
    bare = state()
    bare.ema = {}
    path = store.save(tmp_path, 7, bare, {}, keep=1)
    assert {file.name for file in path.iterdir()} == {
        MANIFEST,
        *(f"{part}.safetensors" for part in ("params", "mu", "nu")),
    }
    assert_same(run_format.load(path).state, bare)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        store.save(tmp_path, step, state(step), {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_going_back_never_deletes_what_was_just_written(tmp_path: Path) -> None:
    for step in (1, 5, 3):
        store.save(tmp_path, step, state(step), {}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000005"]


def flip_a_bit(path: Path) -> None:
    file = path / "mu.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)


def cut(path: Path) -> None:
    file = path / "nu.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def lose_a_file(path: Path) -> None:
    (path / "params.safetensors").unlink()


def cut_the_manifest(path: Path) -> None:
    file = path / MANIFEST
    file.write_bytes(file.read_bytes()[:-20])


def lose_the_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def come_from_the_future(path: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, "version": 99}))


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut, lose_a_file, cut_the_manifest, lose_the_manifest, come_from_the_future]
)
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path: Path, damage: object) -> None:
    for step in (1, 2):
        store.save(tmp_path, step, state(step), {}, keep=3)
    damage(tmp_path / "step-00000002")
    said: list[str] = []
    found = store.newest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert_same(found.state, state(1))
    (line,) = said
    assert "step-00000002" in line
    assert "\n" not in line
    damage(tmp_path / "step-00000001")
    with pytest.raises(Damaged, match="no checkpoint is intact"):
        store.newest(tmp_path, said.append)


def test_what_a_killed_writer_left_is_swept_up_and_never_read(tmp_path: Path) -> None:
    whole = store.save(tmp_path, 1, state(), {}, keep=3)
    for name in (".writing-step-00000002", ".deleting-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.safetensors").write_bytes(b"half")
    found = store.newest(tmp_path, print)
    assert found is not None
    assert found.path == whole
    assert list(tmp_path.iterdir()) == [whole]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert store.newest(tmp_path / "absent", print) is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match=r"step-00000001: cannot be written: File exists"):
        store.save(tmp_path / "file", 1, state(), {}, keep=1)
