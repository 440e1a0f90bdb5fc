"""A disk that fills up: one line, status 2, nothing left, whatever is written."""

from pathlib import Path

import pytest

import convert
import spec
from tests.convert.samples import trained
from tests.train.namespace import ALLOWED, bash

pytestmark = pytest.mark.skipif(not ALLOWED, reason="mounts are not allowed here")

MODEL = spec.fcmae(depths=(2, 2), dims=(32, 64), stem_stride=2, image_size=16, decoder_dim=16)  # 430 kB
SCRIPT = """
mount -t tmpfs -o size=300k none $disk
status=0
for output in $outputs; do
    $python -m convert translate $source --to ${output%%:*} $flags -o $disk/${output##*:} || status=$?
    echo "$status:$(ls -A $disk)"
done
"""


@pytest.mark.parametrize(
    ("outputs", "flags"),
    [
        ("ours:x.safetensors ours:x.npz ours:run official-sparse:x.pth", ""),
        ("flax:x.msgpack flax:x.orbax", ""),
        ("hf:x", "--encoder-only"),
    ],
)
def test_every_writer_says_so_in_one_line_and_leaves_nothing(outputs: str, flags: str, tmp_path: Path) -> None:
    convert.save(trained(MODEL), tmp_path / "x.pth", format="official-sparse")
    (tmp_path / "disk").mkdir()
    script = f"outputs={outputs!r} flags={flags!r}\n{SCRIPT}"
    done = bash(script, source=tmp_path / "x.pth", disk=tmp_path / "disk")
    count = len(outputs.split())
    assert done.stdout.splitlines() == ["2:"] * count, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == count, done.stderr
    assert all(line.startswith("convert: ") and line.endswith("not written: No space left on device") for line in lines)
