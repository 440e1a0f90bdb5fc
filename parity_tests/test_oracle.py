"""The oracle itself: against the published code, and its gradients against complex steps."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

import spec
from backends.protocol import Batch, Optimizer
from parity_tests import golden, oracle, tolerances
from parity_tests.oracle.training import cross_entropy, loss_and_gradients
from parity_tests.strategies import CASES, Case, fcmae_cases

Arrays = dict[str, np.ndarray]

STEP = 1e-30
"""A step along the imaginary axis: f(x + i h) = f(x) + i h f'(x), with nothing to cancel."""


@pytest.mark.parametrize("images", [1, 3])
def test_oracle_reproduces_the_published_autoencoder(images: int) -> None:
    published = golden.fcmae(images)
    arguments = published.model, published.arrays, published.images, published.mask
    outputs = oracle.forward(*arguments)
    found = {name: outputs[name] for name in published.outputs}
    tolerances.assert_all_close(found, published.outputs, tolerances.GOLDEN, "oracle")
    tolerances.assert_all_close(oracle.gradients(*arguments), published.gradients, tolerances.GOLDEN, "oracle")


def test_oracle_reproduces_the_published_classifier() -> None:
    published = golden.classifier()
    outputs = oracle.forward(published.model, published.arrays, published.images)
    found = {name: outputs[name] for name in published.outputs}
    tolerances.assert_all_close(found, published.outputs, tolerances.GOLDEN, "oracle")


def assert_slopes(case: Case, gradients: Arrays, loss: Callable[[Arrays], np.ndarray]) -> None:
    """Every array's gradient, along a random direction, against a complex step.

    Exact zeros stay: they make GRN's dead channels, where its root has a kink and no slope.
    """
    rng = np.random.default_rng(case.seed)
    bound = tolerances.gradient("float64", case)
    for name, array in case.arrays.items():
        direction = rng.choice([-1.0, 1.0], array.shape) * (array != 0)
        slope = loss({**case.arrays, name: array + 1j * STEP * direction}).imag / STEP
        scale = np.abs(gradients[name]).sum()
        assert abs((gradients[name] * direction).sum() - slope) <= bound * scale, name


def masked_loss(case: Case) -> Callable[[Arrays], np.ndarray]:
    return lambda arrays: oracle.forward(case.model, arrays, case.images, case.mask)["loss"]


@pytest.mark.parametrize("label", [label for label, case in CASES.items() if isinstance(case.model, spec.FCMAE)])
def test_gradients_are_slopes(label: str) -> None:
    case = CASES[label]
    assert_slopes(case, oracle.gradients(case.model, case.arrays, case.images, case.mask), masked_loss(case))


@given(fcmae_cases())
def test_gradients_are_slopes_for_any_model(case: Case) -> None:
    assert_slopes(case, oracle.gradients(case.model, case.arrays, case.images, case.mask), masked_loss(case))


@pytest.mark.parametrize("label", ["classifier", "masked classifier"])
def test_classifier_gradients_are_slopes(label: str) -> None:
    case = CASES[label]
    rng = np.random.default_rng(0)
    batch = Batch(images=case.images, targets=rng.random((case.count, case.model.num_classes)))
    if case.mask is not None:
        batch["mask"] = case.mask
    _, gradients = loss_and_gradients(case.model, case.arrays, batch, (0.0,), (1.0,))

    def loss(arrays: Arrays) -> np.ndarray:
        logits = oracle.forward(case.model, arrays, case.images, case.mask)["logits"]
        return cross_entropy(logits, batch["targets"])[0]

    assert_slopes(case, gradients, loss)


def test_a_wrong_gradient_is_seen() -> None:
    case = CASES["four stages"]
    gradients = oracle.gradients(case.model, case.arrays, case.images, case.mask)
    gradients["pred.bias"] = gradients["pred.bias"] * (1 + 1e-9)
    with pytest.raises(AssertionError, match=r"pred\.bias"):
        assert_slopes(case, gradients, masked_loss(case))


def test_layer_decay_counts_from_the_head() -> None:
    model = spec.classifier(depths=(3, 3, 9, 3), dims=(8, 8, 8, 8), num_classes=2)
    table = spec.parameters(model)
    optimizer = Optimizer(layer_decay=0.5, layer_decay_type="single")
    scales = {name: oracle.layer_scale(model, optimizer, param) for name, param in table.items()}
    assert scales["head.weight"] == 1
    assert scales["stages.3.2.grn.gamma"] == 0.5
    assert scales["downsample_layers.0.0.weight"] == 0.5**18
