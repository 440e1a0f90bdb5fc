"""What must not matter, does not: removed pixels, the order and the size of a batch, a mask of nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spec
from parity_tests import tolerances
from parity_tests.oracle.model import pixels_kept
from parity_tests.strategies import CASES, Case, variants
from parity_tests.subjects import SUBJECTS, Subject

Arrays = dict[str, np.ndarray]
subjects = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
DTYPE = "float64"


def outputs(subject: Subject, case: Case, images: np.ndarray, mask: np.ndarray | None) -> Arrays:
    """Outputs and intermediates of the case's model on given images."""
    backend, net = subject.load(case.model, case.arrays, DTYPE)
    return backend.forward(net, images, mask, engine=subject.engine, intermediates=True)


def without_loss(found: Arrays) -> Arrays:
    """All but the loss, which removed pixels are the target of."""
    return {name: array for name, array in found.items() if name != "loss"}


def painted(case: Case, colour: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The images with other removed pixels."""
    return np.where(pixels_kept(case.model, case.mask)[..., None], case.images, colour(case.images))


@subjects
@pytest.mark.parametrize("colour", [np.nan, np.inf, -np.inf, 1e300], ids=str)
def test_removed_pixels_never_reach_an_output(subject: Subject, colour: float) -> None:
    @given(variants(CASES["batch scope"]))
    def law(case: Case) -> None:
        images = painted(case, lambda images: np.full_like(images, colour))
        expected = without_loss(outputs(subject, case, case.images, case.mask))
        found = without_loss(outputs(subject, case, images, case.mask))
        tolerances.assert_same(found, expected, f"{subject}, removed pixels {colour}")

    law()


@subjects
def test_removed_pixels_never_reach_a_gradient(subject: Subject) -> None:
    """The normalised target of a patch of one colour is exactly 0, so the loss does not depend on the colour."""

    @given(variants(CASES["equal widths"]), st.integers(-(2**20), 2**20))
    def law(case: Case, colour: int) -> None:
        backend, net = subject.load(case.model, case.arrays, DTYPE)
        black, other = (painted(case, lambda images, c=c: np.full_like(images, c)) for c in (0, colour / 8))
        expected = backend.gradients(net, black, case.mask, engine=subject.engine)
        found = backend.gradients(net, other, case.mask, engine=subject.engine)
        what = f"{subject}, gradient, removed pixels {colour / 8}"
        if subject.engine == "minkowski":  # its gradient of a depthwise kernel changes from run to run, in the last bit
            tolerances.assert_all_close(found, expected, tolerances.gradient(DTYPE, case), what)
        else:
            tolerances.assert_same(found, expected, what)

    law()


def test_the_laws_above_would_see_a_leak() -> None:
    """A visible pixel moved by one unit in the last place shows in the outputs, bit for bit."""
    case, subject = CASES["batch scope"], SUBJECTS[0]
    images = np.nextafter(case.images, np.inf)
    expected = without_loss(outputs(subject, case, case.images, case.mask))
    with pytest.raises(AssertionError, match="not the same bits"):
        tolerances.assert_same(without_loss(outputs(subject, case, images, case.mask)), expected, "leak")


def reordered(found: Arrays, order: list[int]) -> Arrays:
    return {name: array[order] for name, array in found.items() if array.ndim}


@subjects
@given(case=variants(CASES["batch of three"]), order=st.permutations(range(3)))
def test_the_order_of_a_batch_does_not_matter(subject: Subject, case: Case, order: list[int]) -> None:
    expected = outputs(subject, case, case.images, case.mask)
    found = outputs(subject, case, case.images[order], case.mask[order])
    bound = tolerances.forward(DTYPE, case)
    tolerances.assert_all_close(reordered(found, [0, 1, 2]), reordered(expected, order), bound, str(subject))
    tolerances.assert_close(found["loss"], expected["loss"], bound, f"{subject}, loss")


@subjects
@given(case=variants(CASES["batch of three"]), image=st.integers(0, 2))
def test_the_other_images_of_a_batch_do_not_matter(subject: Subject, case: Case, image: int) -> None:
    expected = outputs(subject, case, case.images, case.mask)
    found = outputs(subject, case, case.images[image : image + 1], case.mask[image : image + 1])
    each, of_all = reordered(found, [0]), reordered(expected, [image])
    tolerances.assert_all_close(each, of_all, tolerances.forward(DTYPE, case), str(subject))


@subjects
def test_a_mask_of_nothing_gives_the_dense_classifier(subject: Subject) -> None:
    case = CASES["batch of three"]
    dense = spec.Classifier(case.model.encoder, num_classes=3)
    arrays = replace(case, model=dense).arrays
    arrays |= {name.removeprefix("encoder."): array for name, array in case.arrays.items() if "encoder." in name}
    found = outputs(subject, case, case.images, np.zeros_like(case.mask))
    backend, net = subject.load(dense, arrays, DTYPE)
    expected = backend.forward(net, case.images, engine=subject.engine, intermediates=True)
    encoder = {name: array for name, array in expected.items() if name.startswith(("downsample_layers.", "stages."))}
    assert len(encoder) == sum(name.startswith("encoder.") for name in found)
    same = {name: found[f"encoder.{name}"] for name in encoder}
    tolerances.assert_all_close(same, encoder, tolerances.forward(DTYPE, case), str(subject))
    assert np.isnan(found["loss"])


@subjects
@pytest.mark.parametrize("weights", ["unit", "fresh"])
@pytest.mark.parametrize("label", ["batch scope", "equal widths", "batch of three"])
def test_every_parameter_receives_a_gradient(subject: Subject, label: str, weights: str) -> None:
    gradients = subject.gradients(replace(CASES[label], weights=weights), DTYPE)
    assert list(gradients) == list(spec.parameters(CASES[label].model))
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert gradient.any(), name
