"""Random damage, whose result cannot be predicted: a checkpoint or one line, never anything else."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convert
import spec
from convert import ConvertError
from convert.arrays import DTYPES
from tests.convert.samples import CONTAINERS, trained

MODEL = spec.fcmae(depths=(1,), dims=(4,), stem_stride=1, image_size=2, decoder_dim=3, decoder_depth=0)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound file of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    for suffix in CONTAINERS:
        convert.save(trained(MODEL), folder / f"x{suffix}", format="ours")
    return folder


places = st.integers(0, 400) | st.integers(0, 2**20)  # headers are small, and stand in front
damages = st.lists(st.tuples(places, st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4)
"""Offset, number of bytes removed, bytes inserted."""


@pytest.mark.parametrize("suffix", CONTAINERS)
@settings(max_examples=5 * settings.default.max_examples)
@given(damage=damages)
def test_random_damage_is_a_checkpoint_or_one_line(
    suffix: str, damage: list[tuple[int, int, bytes]], sound: Path
) -> None:
    content = bytearray((sound / f"x{suffix}").read_bytes())
    for at, length, new in damage:
        content[at % len(content) : at % len(content) + length] = new
    path = sound / f"damaged{suffix}"
    path.write_bytes(content)
    message, found = _loaded(path)
    assert "\n" not in message
    if found is not None:
        table = spec.parameters(found.model)
        arrays = {name: found.arrays.entries[name] for name in found.arrays}
        assert all(one.shape == table[name].shape and one.dtype in DTYPES.values() for name, one in arrays.items())


def _loaded(path: Path) -> tuple[str, convert.Checkpoint | None]:
    """The checkpoint, all its values read, or the line that says why there is none."""
    try:
        found = convert.load(path)
        for array in found.arrays.values():
            assert array.size
        return "", found
    except ConvertError as error:
        return str(error), None


def test_damage_is_described_by_the_file_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{       ")
    with pytest.raises(ConvertError, match=r"x.safetensors: damaged"):
        convert.load(path)
