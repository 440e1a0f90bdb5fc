"""The published PyTorch code's own outputs and gradients, in every backend with every engine."""

import pytest

import spec
from parity_tests import golden, tolerances
from parity_tests.golden import Golden
from parity_tests.subjects import SUBJECTS, Subject

subjects = pytest.mark.parametrize("subject", SUBJECTS, ids=str)


def assert_reproduces(subject: Subject, published: Golden) -> None:
    backend, net = subject.load(published.model, published.arrays, "float32")
    images, mask = published.images, published.mask
    outputs = backend.forward(net, images, mask, engine=subject.engine)
    found = {name: outputs[name] for name in published.outputs}
    tolerances.assert_all_close(found, published.outputs, tolerances.GOLDEN, str(subject))
    if isinstance(published.model, spec.FCMAE):
        gradients = backend.gradients(net, images, mask, engine=subject.engine)
        tolerances.assert_all_close(gradients, published.gradients, tolerances.GOLDEN, f"{subject}, gradient")


@subjects
def test_autoencoder(subject: Subject) -> None:
    assert_reproduces(subject, golden.fcmae(1))


@subjects
def test_autoencoder_with_the_released_batch_wide_grn(subject: Subject) -> None:
    assert_reproduces(subject, golden.fcmae(3))


@subjects
def test_classifier(subject: Subject) -> None:
    assert_reproduces(subject, golden.classifier())
