"""Every wrong variant dies, at the tolerance under which both backends pass the same cases (`test_laws.py`)."""

from functools import cache

import pytest

import spec
from parity_tests import oracle, tolerances
from parity_tests.mutants import MUTANTS, Mutant
from parity_tests.strategies import CASES, Case
from parity_tests.subjects import true_gradients, truth

OUTPUTS = ("encoded", "prediction", "loss", "features", "logits", "stage0", "stage1")


@cache
def output_gaps(name: str) -> dict[str, float]:
    """Case -> the worst gap of an output between mutant and oracle."""
    return {label: _output_gap(MUTANTS[name], case) for label, case in CASES.items()}


@cache
def gradient_gaps(name: str) -> dict[str, float]:
    masked = {label: case for label, case in CASES.items() if isinstance(case.model, spec.FCMAE)}
    return {label: _gradient_gap(MUTANTS[name], case) for label, case in masked.items()}


def _output_gap(mutant: Mutant, case: Case) -> float:
    wrong = oracle.forward(case.model, case.arrays, case.images, case.mask, rules=mutant.rules)
    return max(tolerances.gap(wrong[name], truth(case)[name]) for name in OUTPUTS if name in wrong)


def _gradient_gap(mutant: Mutant, case: Case) -> float:
    wrong = oracle.gradients(case.model, case.arrays, case.images, case.mask, rules=mutant.rules)
    return max(tolerances.gap(wrong[name], right) for name, right in true_gradients(case).items())


def killers(name: str, dtype: str) -> list[str]:
    """The cases that distinguish the mutant from the oracle: by an output, or where no output does, by a gradient."""
    by_output = [label for label, gap in output_gaps(name).items() if gap > tolerances.forward(dtype, CASES[label])]
    if by_output or MUTANTS[name].only_float64:
        return by_output
    gaps = gradient_gaps(name)
    return [label for label, gap in gaps.items() if gap > tolerances.gradient(dtype, CASES[label])]


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_dies(name: str) -> None:
    assert killers(name, "float64"), f"{name}: survives every case; the worst gaps are {output_gaps(name)}"


@pytest.mark.parametrize("name", MUTANTS)
def test_float32_sees_all_but_the_few_that_say_so(name: str) -> None:
    assert bool(killers(name, "float32")) != MUTANTS[name].only_float64, output_gaps(name)
