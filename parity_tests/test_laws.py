"""masked == visible == oracle: outputs, every intermediate, and every gradient, in each backend."""

import pytest
from hypothesis import given

import backends
import spec
from backends.protocol import BackendError
from parity_tests import tolerances
from parity_tests.strategies import CASES, Case, classifier_cases, fcmae_cases, variants
from parity_tests.subjects import SUBJECTS, Subject, true_gradients, truth

subjects = pytest.mark.parametrize("subject", SUBJECTS, ids=str)


def assert_obeys(subject: Subject, case: Case, dtype: str) -> None:
    """The subject computes what the oracle computes; the first step that does not is named."""
    what = f"{subject} {dtype}"
    if case.model.encoder.grn_scope == "grid" and case.mask is not None and subject.engine != "masked":
        with pytest.raises(BackendError, match=r"computes no removed sites, .* 'grid' sums; use engine='masked'$"):
            subject.forward(case, dtype)
        return
    found = subject.forward(case, dtype)
    tolerances.assert_all_close(found, truth(case), tolerances.forward(dtype, case), what)
    if isinstance(case.model, spec.FCMAE):
        gradients = subject.gradients(case, dtype)
        bound = tolerances.gradient(dtype, case)
        tolerances.assert_all_close(gradients, true_gradients(case), bound, f"{what}, gradient")


@subjects
@pytest.mark.parametrize("label", CASES)
def test_float64(label: str, subject: Subject) -> None:
    assert_obeys(subject, CASES[label], "float64")


@subjects
@pytest.mark.parametrize("label", ["batch scope", "grid scope", "V1", "offset", "dead channels", "masked classifier"])
def test_float32(label: str, subject: Subject) -> None:
    assert_obeys(subject, CASES[label], "float32")


@subjects
@pytest.mark.parametrize("label", ["batch scope", "V1", "masked classifier"])
def test_bfloat16(label: str, subject: Subject) -> None:
    assert_obeys(subject, CASES[label], "bfloat16")


@subjects
@pytest.mark.parametrize("label", ["batch scope", "one visible"])
def test_any_input_of_one_model(label: str, subject: Subject) -> None:
    @given(variants(CASES[label]))
    def law(case: Case) -> None:
        assert_obeys(subject, case, "float64")

    law()


@pytest.mark.parametrize("backend", backends.installed())
@given(case=fcmae_cases())
def test_any_autoencoder(backend: str, case: Case) -> None:
    for subject in SUBJECTS:
        if subject.backend == backend:
            assert_obeys(subject, case, "float64")


@pytest.mark.parametrize("backend", backends.installed())
@given(case=classifier_cases())
def test_any_classifier(backend: str, case: Case) -> None:
    for subject in SUBJECTS:
        if subject.backend == backend:
            assert_obeys(subject, case, "float64")
