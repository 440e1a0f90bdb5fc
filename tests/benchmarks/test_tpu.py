"""What a gradient costs a device that compiles it ahead of time; here that is the processor, in `make aot` a TPU."""

import pytest

import backends
import spec
from benchmarks import tpu
from benchmarks.__main__ import main

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

MODEL = spec.fcmae(depths=(1, 1), dims=(8, 64), decoder_dim=8, patch_size=4, image_size=32, mask_ratio=0.75)


@pytest.mark.parametrize("part", ["encoder", "fcmae"])
def test_visible_costs_less_than_masked(part: str) -> None:
    masked, visible = (
        tpu.measure(MODEL, "cpu:1", 4, engine, part=part, dtype="float32", remat=False) for engine in tpu.ENGINES
    )
    assert visible.flops < masked.flops
    assert visible.temporary < masked.temporary


def test_the_encoder_alone_is_less_than_all() -> None:
    encoder, everything = (
        tpu.measure(MODEL, "cpu:1", 4, "masked", part=part, dtype="float32", remat=False)
        for part in ("encoder", "fcmae")
    )
    assert encoder.flops < everything.flops


def test_an_unknown_topology_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tpu", "convnextv2_atto", "--topology", "cpu:9999"]) == 2
    said = capsys.readouterr().err
    assert "cpu:9999" in said
    assert said.count("\n") == 1
