"""`--aot`: the step of a command, compiled for devices that are elsewhere, and what is refused."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

import backends
import spec
from backends.protocol import Batch, Optimizer, TrainerOptions
from benchmarks import tpu
from parity_tests.tolerances import FLOPS
from train.__main__ import main

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp

from backends.jax import aot, api, steps
from backends.jax.flops import repeats

LIBTPU = [pytest.mark.aot, pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")]
TINY = "--backend jax --model none --dims 8 8 --patch_size 4 --input_size 8 --batch_size 2"


def test_a_loop_counts_as_often_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in a loop are said to cost what XLA counts of them side by side."""
    model = spec.fcmae(depths=(1, 4), dims=(8, 256), decoder_dim=8, patch_size=4, image_size=16, mask_ratio=0.75)
    step = aot.train_step(model, Optimizer(), aot.devices("cpu:1"), TrainerOptions(engine="visible"))
    mask = np.ones((1, 4, 4), np.uint8)
    mask[:, :2, :2] = 0
    row = Batch(images=np.zeros((1, 16, 16, 3), np.uint8), mask=mask)
    loops = aot.cost(step, row, 8, 1)
    monkeypatch.setattr(steps, "SCANNED", 99)
    unrolled = aot.cost(step, row, 8, 1)
    assert loops.loops
    assert abs(loops.flops / unrolled.flops - 1) < FLOPS


def test_the_step_is_that_of_the_platform_it_is_compiled_for() -> None:
    """On CPU the blocks of the masked form lie side by side, where XLA's convolution is slow in a loop."""
    net = api.empty(spec.classifier(depths=(1, 4), dims=(8, 8), num_classes=2, patch_size=4), "float32")
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    for platform, loops in (("cpu", False), ("tpu", True)):
        traced = jax.make_jaxpr(lambda images, platform=platform: net(images, platform=platform))(shape)
        assert (repeats(traced.jaxpr, platform) > 0) == loops, platform


@pytest.mark.aot
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")
def test_visible_costs_a_tpu_less_than_masked() -> None:
    """The whole step of atto, decoder and optimizer included, 64 images of which 19 of 49 patches are seen."""
    model = spec.fcmae("convnextv2_atto")
    devices = aot.devices("v5e:2x2")[:1]
    options = TrainerOptions(dtype="bfloat16", mean=(0.5,) * 3, std=(0.2,) * 3)
    mask = (np.arange(49) >= spec.visible_patches(model)).reshape(1, 7, 7).astype(np.uint8)
    row = Batch(images=np.zeros((1, 224, 224, 3), np.uint8), mask=mask)
    steps = [
        aot.train_step(model, Optimizer(), devices, replace(options, engine=engine)) for engine in ("masked", "visible")
    ]
    masked, visible = (aot.cost(step, row, 64, 1) for step in steps)
    print("", f"masked: {masked}", f"visible: {visible}", sep="\n")
    assert visible.flops < masked.flops
    assert visible.temporary < masked.temporary
    assert visible.bytes < masked.bytes


@pytest.mark.aot
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")
def test_the_encoder_costs_a_tpu_its_share_of_patches() -> None:
    """The gradient of atto's encoder, 64 images of which 19 of 49 patches are seen; 19/49 is 0.39."""
    options = {"part": "encoder", "dtype": "bfloat16", "remat": False}
    model = spec.fcmae("convnextv2_atto")
    masked, visible = (tpu.measure(model, "v5e:2x2", 64, engine, **options) for engine in tpu.ENGINES)
    assert visible.flops <= 0.45 * masked.flops
    assert visible.temporary <= 0.5 * masked.temporary
    assert visible.bytes <= 0.6 * masked.bytes


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
