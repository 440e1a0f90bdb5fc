"""`--aot`: the step of a command, compiled for devices that are elsewhere, and what is refused."""

from importlib.util import find_spec

import numpy as np
import pytest

import backends
import spec
from backends.protocol import Batch, Optimizer
from train.__main__ import main

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

from backends.jax import aot

LIBTPU = [pytest.mark.aot, pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")]
TINY = "--backend jax --model none --dims 8 8 --patch_size 4 --input_size 8 --batch_size 2"


def test_a_loop_counts_as_often_as_it_runs() -> None:
    model = spec.fcmae(depths=(1, 6), dims=(8, 8), decoder_dim=8, patch_size=4, image_size=8, mask_ratio=0.75)
    update = aot.update(model, Optimizer(), aot.devices("cpu:1"), "float32", (0.0,), (1.0,), shard=False, remat=False)
    row = Batch(images=np.zeros((1, 8, 8, 3), np.uint8), mask=np.array([[[1, 1], [1, 0]]], np.uint8))
    batch = {name: aot._rows(update, 2, value) for name, value in row.items()}
    options = {"engine": "masked", "visible": 1}
    once, unrolled = (aot._Count(update, batch, 1, {**options, "unroll": unroll}) for unroll in (1, 6))
    found = aot.cost(update, row, 2, 1, "masked")
    assert once.flops < 0.8 * unrolled.flops  # so that there is something to correct
    assert abs(found.flops - unrolled.flops) < 0.05 * (unrolled.flops - once.flops)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        pytest.param("--aot v5e:9x9x9", "v5e:9x9x9", marks=LIBTPU),
        ("--aot cpu:9999", "CPU devices"),
        ("--aot cpu:1 --backend torch", "give --backend jax"),
        ("--aot cpu:1 --task eval", "trains nothing"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(flags: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY.split(), "--depths", "1", "1", *flags.split()]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_without_libtpu_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(backends.protocol.BackendError, match=r"twinnext\[aot\]"):
        aot.devices("v5e:1x1")
