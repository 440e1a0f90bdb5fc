"""The tracker counts live tensors; recomputing blocks and smaller types reduce the activations."""

import gc
import math

import pytest

import spec
from benchmarks import memory

torch = pytest.importorskip("torch")

MODEL = spec.fcmae(depths=(2, 1, 2, 1), dims=(16, 32, 64, 128), decoder_dim=64, image_size=128, mask_ratio=0.6)
PARAMETERS = 4 * sum(math.prod(param.shape) for param in spec.parameters(MODEL).values())


def test_the_tracker_counts_live_storages() -> None:
    tracker = memory._tracker()
    with tracker:
        a = torch.zeros(1000)
        b = a + 1
        a.view(10, 100).add_(1)  # neither a view nor an update in place is new
        del a
        c = b * 2
        assert (tracker.now, tracker.peak) == (8000, 8000)
        del b, c
    gc.collect()
    assert (tracker.now, tracker.peak) == (0, 8000)


@pytest.mark.parametrize("engine", memory.ENGINES)
def test_recomputing_blocks_holds_fewer_activations(engine: str) -> None:
    kept, again = (memory.held(MODEL, 4, engine, "float32", remat=remat, ema=True) for remat in (False, True))
    for row in (kept, again):
        assert (row.parameters, row.gradients, row.moments, row.ema) == (
            PARAMETERS,
            PARAMETERS,
            2 * PARAMETERS,
            PARAMETERS,
        )
    assert again.activations < 0.7 * kept.activations


def test_activations_scale_with_batch_size_and_dtype() -> None:
    options = {"remat": False, "ema": False}
    one, two = (memory.held(MODEL, n, "visible", "float32", **options).activations for n in (16, 32))
    half = memory.held(MODEL, 32, "visible", "bfloat16", **options).activations
    assert 1.8 * one < two < 2.1 * one
    assert half < two


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("remat", [False, True])
def test_a_gpu_allocates_what_was_counted(remat: bool) -> None:
    import backends

    counted = memory.held(MODEL, 64, "visible", "float32", remat=remat, ema=False)
    net = backends.load("torch").build(MODEL, device="cuda")
    images, mask = torch.zeros(64, 128, 128, 3, device="cuda"), torch.zeros(64, *MODEL.grid, device="cuda")
    mask.flatten(1)[:, spec.visible_patches(MODEL) :] = 1
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    visible = spec.visible_patches(MODEL)
    net(images, mask, engine="visible", visible=visible, remat=remat, loss_only=True)["loss"].backward()
    measured = torch.cuda.max_memory_allocated() - before
    assert 0.8 < measured / (counted.gradients + counted.activations) < 1.5
