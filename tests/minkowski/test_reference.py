"""MinkowskiEngine equals masked where sparse engines go wrong: blank pixels, empty borders, uneven masks, full size."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import spec
from backends.initial import initial_arrays
from backends.protocol import Batch, Optimizer, TrainerOptions
from parity_tests import golden, tolerances
from parity_tests.strategies import Case, ratio

ABSENT = importlib.util.find_spec("MinkowskiEngine") is None
pytestmark = [
    pytest.mark.minkowski,
    pytest.mark.skipif(ABSENT, reason="MinkowskiEngine is not installed: make minkowski"),
]

torch = pytest.importorskip("torch")
backend = pytest.importorskip("backends.torch")

DTYPES = ("float64", "float32")


def model_of(rows: int, columns: int, visible: int, **fields) -> spec.FCMAE:
    sizes = {"depths": (1, 1), "dims": (8, 10), "stem_stride": 2, "decoder_dim": 8} | fields
    size = (4 * rows, 4 * columns)
    return spec.fcmae(**sizes, image_size=size, mask_ratio=ratio(rows * columns, visible))


def case_of(rows: int, columns: int, visible: int, **facts) -> Case:
    return Case(model_of(rows, columns, visible), (rows, columns), visible, **facts)


def assert_agrees(case: Case, mask: np.ndarray, dtype: str, arrays=None, images=None) -> None:
    """Outputs, intermediates and gradients of MinkowskiEngine equal those of the masked engine."""
    images = case.images if images is None else images
    module = backend.build(case.model, dtype=dtype)
    backend.set_arrays(module, case.arrays if arrays is None else arrays)
    found, expected = (
        backend.forward(module, images, mask, engine=engine, intermediates=True) for engine in ("minkowski", "masked")
    )
    tolerances.assert_all_close(found, expected, tolerances.forward(dtype, case), "forward")
    slopes, expected = (backend.gradients(module, images, mask, engine=engine) for engine in ("minkowski", "masked"))
    tolerances.assert_all_close(slopes, expected, tolerances.gradient(dtype, case), "gradients")


@pytest.mark.parametrize("dtype", DTYPES)
def test_blank_pixels_stay_visible(dtype: str) -> None:
    """At initialisation a black image is 0 everywhere after the stem, where `to_sparse` drops every site."""
    case = case_of(2, 3, 3, count=2, weights="fresh")
    images = case.images.copy()
    images[0] = 0
    images[1, :, : images.shape[2] // 2] = 0
    assert_agrees(case, case.mask, dtype, images=images)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", ["constant", "dark"])
def test_constant_images_and_dead_channels(pixels: str, dtype: str) -> None:
    case = case_of(2, 3, 3, pixels=pixels, weights="dead")
    assert_agrees(case, case.mask, dtype)


@pytest.mark.parametrize("border", ["last row", "last column", "first row", "all but one"])
def test_an_empty_border_crops_nothing(border: str) -> None:
    case = case_of(3, 3, 3, count=1)
    mask = np.zeros((1, 3, 3), np.uint8)
    match border:
        case "last row":
            mask[:, -1] = 1
        case "last column":
            mask[:, :, -1] = 1
        case "first row":
            mask[:, 0] = 1
        case "all but one":
            mask[:, 1:] = mask[:, :, 1:] = 1
    assert_agrees(case, mask, "float64")


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_images_may_keep_different_numbers_of_patches(scope: str) -> None:
    case = replace(case_of(2, 3, 3, count=3), model=model_of(2, 3, 3, grn_scope=scope))
    mask = np.ones((3, 2, 3), np.uint8)
    mask[0, 0, 0] = mask[1, :, :2] = mask[2, 1] = 0
    assert_agrees(case, mask, "float64")


def test_no_mask_is_the_dense_classifier() -> None:
    model = spec.classifier(depths=(1, 2), dims=(8, 10), num_classes=3)
    case = Case(model, (2, 1), 2)
    module = backend.build(model, dtype="float64")
    backend.set_arrays(module, case.arrays)
    found, expected = (
        backend.forward(module, case.images, engine=engine, intermediates=True) for engine in ("minkowski", "masked")
    )
    tolerances.assert_all_close(found, expected, tolerances.forward("float64", case), "classifier")


def test_nothing_that_is_removed_reaches_the_encoder() -> None:
    case = case_of(2, 3, 2)
    module = backend.build(case.model, dtype="float64")
    hidden = case.mask.repeat(4, 1).repeat(4, 2)[..., None] == 1
    spoilt = np.where(hidden, np.nan, case.images)
    clean, dirty = (backend.forward(module, x, case.mask, engine="minkowski") for x in (case.images, spoilt))
    assert np.array_equal(clean["prediction"], dirty["prediction"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_full_atto_encoder_at_224_pixels(dtype: str, record_property) -> None:
    """The claim that sparse and masked dense convolution are equal, against the real thing."""
    model = spec.fcmae("convnextv2_atto")
    case = Case(model, model.grid, spec.visible_patches(model), count=1)
    module = backend.build(model, dtype=dtype)
    backend.set_arrays(module, case.arrays)
    found, expected = (
        backend.forward(module, case.images, case.mask, engine=engine)["encoded"] for engine in ("minkowski", "masked")
    )
    gap = tolerances.gap(found, expected)
    record_property("gap", gap)
    print(f"atto, 224 px, {dtype}: minkowski and masked differ by {gap:.1e} of the largest entry")
    tolerances.assert_close(found, expected, tolerances.forward(dtype, case), "encoded")


@pytest.mark.parametrize("images", [1, 3])
def test_what_the_published_code_computed(images: int) -> None:
    """On this very engine: forward and gradients, on three images with GRN over the batch."""
    published = golden.fcmae(images)
    module = backend.build(published.model)
    backend.set_arrays(module, published.arrays)
    found = backend.forward(module, published.images, published.mask, engine="minkowski")
    tolerances.assert_all_close(found, published.outputs, tolerances.GOLDEN, "outputs")
    slopes = backend.gradients(module, published.images, published.mask, engine="minkowski")
    tolerances.assert_all_close(slopes, published.gradients, tolerances.GOLDEN, "gradients")


def test_two_updates_of_the_trainer() -> None:
    case = case_of(2, 3, 3)
    states = []
    for engine in ("minkowski", "masked"):
        trainer = backend.Trainer(case.model, Optimizer(clip_grad=1.0), TrainerOptions(dtype="float64", engine=engine))
        for _ in range(2):
            trainer.step([Batch(images=case.images, mask=case.mask)], lr=1e-3)
        states.append(trainer.export().params)
    tolerances.assert_all_close(*states, tolerances.TRAJECTORY["float64"], "parameters")


def test_drop_path_drops_its_own_image() -> None:
    model = spec.classifier(depths=(1, 2), dims=(8, 10), num_classes=3, stem_stride=2, drop_path=0.5)
    case = Case(model, (2, 3), 3, count=3)
    keep = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]], np.uint8)
    batch = Batch(images=case.images, mask=case.mask, targets=np.eye(3, dtype=np.float32), keep_paths=keep)
    states = []
    for engine in ("minkowski", "masked"):
        trainer = backend.Trainer(model, Optimizer(), TrainerOptions(dtype="float64", engine=engine))
        trainer.step([batch], lr=1e-3)
        states.append(trainer.export().mu)
    tolerances.assert_all_close(*states, tolerances.gradient("float64", case), "first moments")


def test_it_draws_no_random_number() -> None:
    case = case_of(2, 3, 3)
    before = torch.get_rng_state()
    backend.forward(backend.build(case.model), case.images, case.mask, engine="minkowski")
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_it_leaves_no_trace() -> None:
    script = """
import collections, os
os.cpu_count = lambda: 64  # where it would warn, and set the threads of later processes
from backends.torch.space.minkowski import ME
assert not hasattr(collections, "Sequence")
assert "OMP_NUM_THREADS" not in os.environ
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_fresh_parameters_are_what_blank_pixels_were_tried_on() -> None:
    """The stem's bias starts at 0: with another first value the test above would show nothing."""
    arrays = initial_arrays(model_of(2, 3, 3))
    assert not arrays["encoder.downsample_layers.0.0.bias"].any()
    assert not arrays["encoder.downsample_layers.0.1.bias"].any()
