"""The cost of programs compiled ahead of time: for the CPU here, and in `make aot` for TPUs that are not here."""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest

import backends
import spec
from backends.protocol import BackendError
from benchmarks.__main__ import main
from parity_tests.tolerances import FLOPS

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp

from backends.jax import api, steps
from benchmarks import tpu
from benchmarks.flops import repeats

MODEL = spec.fcmae(depths=(1, 1), dims=(8, 64), decoder_dim=8, patch_size=4, image_size=32, mask_ratio=0.75)
LOOPS = spec.fcmae(depths=(1, 4), dims=(8, 256), decoder_dim=8, patch_size=4, image_size=16, mask_ratio=0.75)
WORK = tpu.Work(MODEL, (32, 32), 4, dtype="float32")
STEP = replace(WORK, what="step")
ATTO = tpu.Work(spec.fcmae("convnextv2_atto"), (224, 224), 64)

needs_libtpu = [
    pytest.mark.aot,
    pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)"),
]


def both(work: tpu.Work, topology: str = "cpu:1") -> tuple[tpu.Cost, tpu.Cost]:
    """The costs of masked and of visible."""
    masked, visible = (tpu.measure(work, topology, engine) for engine in tpu.ENGINES)
    return masked, visible


@pytest.mark.parametrize("work", [WORK, replace(WORK, part="fcmae"), STEP], ids=["encoder", "fcmae", "step"])
def test_visible_costs_less_than_masked(work: tpu.Work) -> None:
    masked, visible = both(work)
    assert visible.flops < masked.flops
    assert visible.temporary < masked.temporary


def test_the_encoder_costs_less_than_the_whole_model_and_that_less_than_a_step() -> None:
    works = (WORK, replace(WORK, part="fcmae"), STEP)
    flops = [tpu.measure(work, "cpu:1", "masked").flops for work in works]
    assert flops == sorted(flops)
    assert len(set(flops)) == 3


def test_a_step_holds_parameters_moments_and_ema() -> None:
    parameters = 4 * spec.count(MODEL)
    batch = 4 * (32 * 32 * 3 + 8 * 8)
    held = [tpu.measure(replace(STEP, ema=ema), "cpu:1", "visible").held for ema in (False, True)]
    assert 0 <= held[0] - 3 * parameters - batch < 64  # and two scalars
    assert held[1] - held[0] == parameters


def test_micro_batches_repeat_the_gradient_and_not_the_optimizer() -> None:
    one, two = (tpu.measure(replace(STEP, update_freq=count), "cpu:1", "visible") for count in (1, 2))
    assert 1.9 * one.flops < two.flops < 2.2 * one.flops


def test_a_classifier_has_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    command = "tpu convnextv2_atto --topology cpu:1 --what step --num_classes 3 --image_size 32 --batch_size 1"
    assert main(command.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "convnextv2_atto, training step on each device of cpu:1, 1 images of 32 px, bfloat16"
    assert [line.split()[0] for line in lines[2:4]] == ["engine", "masked"]
    assert not any(line.startswith(("visible", "share")) for line in lines)


def test_a_table_ends_with_the_shares_of_visible() -> None:
    lines = tpu.table(WORK, "small", "cpu:1").splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["engine", "masked", "visible", "share"]
    masked, visible, share = (line.split()[1] for line in lines[3:6])
    assert float(visible) <= float(masked)
    assert share.endswith("x")


def test_an_engine_that_does_not_fit_is_named_and_the_others_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(work: tpu.Work, topology: str, engine: str) -> tpu.Cost:
        if engine == "masked":
            raise tpu.DoesNotFit("does not fit: needs 19.80G of the 15.75G of each device")
        return tpu.Cost(1e12, 2e9, 3, 4, 5.0, loops=True)

    monkeypatch.setattr(tpu, "measure", measure)
    lines = tpu.table(WORK, "small", "v5e:1x1").splitlines()
    assert lines[3].split()[:3] == ["visible", "1.000", "2.00"]
    assert lines[4] == "masked: does not fit: needs 19.80G of the 15.75G of each device"
    assert "lower bound" in lines[5]


def test_a_loop_counts_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in a loop cost what XLA counts for the same blocks unrolled."""
    work = tpu.Work(LOOPS, (16, 16), 8, what="step", dtype="float32")
    loops = tpu.measure(work, "cpu:1", "visible")
    monkeypatch.setattr(steps, "SCANNED_ON_CPU", 99)
    unrolled = tpu.measure(work, "cpu:1", "visible")
    assert loops.loops
    assert abs(loops.flops / unrolled.flops - 1) < FLOPS


def test_the_program_is_that_of_the_platform_it_is_compiled_for() -> None:
    """On CPU the blocks of the masked form are unrolled, since XLA's convolution is slow in a loop."""
    net = api.empty(spec.classifier(depths=(1, 4), dims=(8, 8), num_classes=2, patch_size=4), "float32")
    shapes = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((1, 2, 2), jnp.uint8)
    for platform, loops in (("cpu", False), ("tpu", True)):
        traced = jax.make_jaxpr(partial(net, engine="masked", platform=platform))(*shapes)
        assert (repeats(traced.jaxpr, platform) > 0) == loops, platform


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        pytest.param("--topology v5e:9x9x9", "v5e:9x9x9", marks=needs_libtpu),
        ("--topology cpu:9999", "--topology cpu:9999: this process sees"),
        ("--what step --part encoder", "--part: has no effect on this step; leave it out"),
        ("--shard", "--shard: has no effect on this gradient; leave it out"),
        ("--what step --num_classes 5 --mask_ratio 0.6", "--mask_ratio: has no effect on this step; leave it out"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(flags: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tpu", "convnextv2_atto", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_without_libtpu_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu, "_has_libtpu", lambda: False)
    with pytest.raises(BackendError, match=r"twinnext\[aot\]"):
        tpu.devices("v5e:1x1")


@pytest.mark.aot
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")
def test_visible_costs_a_tpu_less_than_masked() -> None:
    """The training step of atto, decoder and optimizer included, 64 images with 19 of 49 patches visible."""
    print("", tpu.table(replace(ATTO, what="step"), "convnextv2_atto", "v5e:1x1"), sep="\n")
    masked, visible = both(replace(ATTO, what="step"), "v5e:1x1")
    assert visible.flops < masked.flops
    assert visible.temporary < masked.temporary
    assert visible.bytes < masked.bytes


@pytest.mark.aot
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")
def test_the_encoder_costs_a_tpu_its_share_of_patches() -> None:
    """The gradient of atto's encoder, 64 images with 19 of 49 patches visible; 19/49 is 0.39."""
    masked, visible = both(ATTO, "v5e:1x1")
    assert visible.flops <= 0.45 * masked.flops
    assert visible.temporary <= 0.5 * masked.temporary
    assert visible.bytes <= 0.6 * masked.bytes
