"""The roofline's count, compared with torch's own and with counts by hand."""

from typing import Any

import pytest

import backends
import spec
from benchmarks import roofline
from benchmarks.worker import inputs

RATIO = 0.8  # so few patches that a CPU takes no whole images in their place
JOB = {"mask_ratio": RATIO, "batch_size": 2}
MODEL = spec.fcmae(depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), decoder_dim=64, image_size=128, mask_ratio=RATIO)
KEPT, PATCHES, PIXELS = 3, 16, 32 * 32 * 3


def dispatched(backward: bool) -> Any:
    """torch's own count for the visible engine."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    net, (_, batch) = backends.load("torch").build(MODEL), inputs(JOB, MODEL)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        images, mask = torch.from_numpy(batch["images"]), torch.from_numpy(batch["mask"])
        loss = net(images, mask, engine="visible", visible=KEPT, loss_only=True)["loss"]
        if backward:
            loss.backward()
    return counter


def flops(what: str) -> dict[str, int]:
    return {bound.name: bound.flops for bound in roofline.bounds(MODEL, 2, what=what) if bound.name != "loss"}


def test_flops_of_every_step_of_the_forward_pass_equal_torchs() -> None:
    counter = dispatched(backward=False)
    theirs = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    ours = {name: count for name, count in flops("forward").items() if count}
    assert len(ours) == 12
    assert {name: theirs[f"FCMAE.{name}"] for name in ours} == ours
    assert counter.get_total_flops() == sum(ours.values())


def test_forward_and_backward_have_torchs_count() -> None:
    """But for the weight gradient of patches of one site, a product and a sum, which torch does not count."""
    uncounted = 2 * (2 * KEPT) * 49 * 128
    assert dispatched(backward=True).get_total_flops() + uncounted == sum(flops("gradient").values())


def test_the_encoder_is_counted_at_its_visible_patches() -> None:
    one, all_ = (
        {bound.name: bound for bound in roofline.bounds(MODEL, 2, what="forward", visible=visible)}
        for visible in (KEPT, PATCHES)
    )
    for name, bound in one.items():
        shown = name.startswith("encoder") or name == "proj"
        assert bound.flops * PATCHES == all_[name].flops * KEPT if shown else True, name
    assert one["decoder.0"] == all_["decoder.0"]
    assert one["pred"].flops == 2 * 2 * (PATCHES - KEPT) * 64 * PIXELS
    assert (one["loss"].bytes, all_["loss"].bytes) == (2 * (PATCHES - KEPT) * PIXELS * 5, 0)


def test_bytes_of_a_block_the_loss_and_adamw_equal_counts_by_hand() -> None:
    found = {bound.name: bound for bound in roofline.bounds(MODEL, 2, dtype="bfloat16")}
    activation = 2 * KEPT * 8 * 8 * 16  # of stage 0
    weights = 49 * 16 + 16 + 2 * 16 + 16 * 64 + 64 + 2 * 64 + 64 * 16 + 16
    assert found["encoder.stages.0.0"].bytes == 2 * (5 * activation + 3 * weights)
    removed = 2 * (PATCHES - KEPT) * PIXELS
    assert found["loss"].bytes == removed * (1 + 2 + 2)
    stem = 2 * (2 * KEPT * PIXELS + 2 * activation) + 2 * 3 * (48 * 16 + 16)  # pixels are bytes
    assert found["encoder.downsample_layers.0.0"].bytes == stem
    assert found["AdamW"].bytes == 28 * spec.count(MODEL)


def test_a_classifier_is_counted_in_full() -> None:
    model = spec.classifier("convnextv2_atto", num_classes=1000)
    found = roofline.bounds(model, 4, what="forward")
    assert sum(bound.flops for bound in found if bound.name != "loss") == 2 * 4 * spec.macs(model)
    step = roofline.bounds(model, 4)
    assert step[-1] == roofline.Bound("AdamW", 12 * spec.count(model), 28 * spec.count(model))


def test_each_step_is_bound_by_the_slower_of_arithmetic_and_bytes() -> None:
    found = [roofline.Bound("a", 10**12, 10**9), roofline.Bound("b", 10**9, 10**12)]
    assert roofline.limit(found, tflops=1, gbps=1000) == pytest.approx(1 + 1)
    assert "arithmetic" in roofline.table(found, 1, 1000, 8).splitlines()[1]
    assert roofline.table(found, 1, 1000, 8).endswith("at most 4 images/s at 1 TFLOP/s and 1000 GB/s")


def test_blocks_of_v1_and_v2_differ_by_their_parameters_alone() -> None:
    """LayerScale, as GRN, is absorbed by a neighbour."""
    one, two = (
        roofline.bounds(spec.classifier(depths=(2,), dims=(8,), patch_size=4, block=block), 2, what="forward")
        for block in ("v1", "v2")
    )
    assert [(bound.name, bound.flops) for bound in one] == [(bound.name, bound.flops) for bound in two]
    more = [b.bytes - a.bytes for a, b in zip(one, two, strict=True)]
    gamma, grn = 8, 2 * 32
    assert more == [4 * (grn - gamma) if "stages" in bound.name else 0 for bound in one]
