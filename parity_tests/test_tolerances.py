"""The tolerances live in one file, and a comparison that should fail does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parity_tests import tolerances
from parity_tests.strategies import CASES

HERE = Path(__file__).parent
KEYWORDS = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "decimal", "bound"}
COMPARISONS = {"allclose", "assert_allclose", "isclose", "approx", "assert_almost_equal", "assert_array_almost_equal"}


def literal_tolerances(source: str) -> Iterator[str]:
    """Every call that brings a tolerance of its own: as a keyword, by position, or hidden in a library's default."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        numbers = [keyword for keyword in node.keywords if keyword.arg in KEYWORDS and _literal(keyword.value)]
        if name in COMPARISONS or numbers or (name.startswith("assert_") and any(map(_literal, node.args))):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _literal(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, float) for part in ast.walk(node))


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.py")), ids=lambda path: str(path.relative_to(HERE)))
def test_no_tolerance_stands_elsewhere(path: Path) -> None:
    if path.name not in ("tolerances.py", "test_tolerances.py"):
        assert not list(literal_tolerances(path.read_text()))


@pytest.mark.parametrize(
    "planted",
    [
        "np.allclose(a, b)",
        "np.testing.assert_allclose(a, b, rtol=1e-4)",
        "assert a == pytest.approx(b)",
        "tolerances.assert_close(a, b, 1e-3, 'x')",
        "tolerances.assert_close(a, b, bound=2 * 1e-3, what='x')",
    ],
)
def test_a_planted_tolerance_is_found(planted: str) -> None:
    assert list(literal_tolerances(planted))


RIGHT = np.array([[1.0, -4.0], [0.5, np.nan]])


@pytest.mark.parametrize(
    "wrong",
    [
        RIGHT + 4.001e-3,
        np.where(np.isnan(RIGHT), 0.0, RIGHT),
        np.where(RIGHT == 0.5, np.nan, RIGHT),
        np.where(RIGHT == 0.5, np.inf, RIGHT),
        RIGHT[:1],
        RIGHT[None],
    ],
)
def test_a_wrong_array_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(AssertionError, match="here: off by"):
        tolerances.assert_close(wrong, RIGHT, 1e-3, "here")


def test_a_right_array_is_accepted() -> None:
    tolerances.assert_close(RIGHT + 3.999e-3, RIGHT, 1e-3, "here")
    tolerances.assert_close(np.zeros(3), np.zeros(3), 0.0, "here")


def test_where_exact_zeros_are_expected_nothing_else_will_do() -> None:
    with pytest.raises(AssertionError, match="off by inf"):
        tolerances.assert_close(np.full(3, 1e-30), np.zeros(3), 1e-3, "here")


def test_the_first_name_that_diverges_is_reported() -> None:
    expected = {"first": np.ones(2), "second": np.ones(2), "third": np.ones(2)}
    with pytest.raises(AssertionError, match="torch masked, second"):
        tolerances.assert_all_close({**expected, "third": 0, "second": np.zeros(2)}, expected, 1e-3, "torch masked")
    with pytest.raises(AssertionError, match="only one side has second"):
        tolerances.assert_all_close({"first": np.ones(2), "third": np.ones(2)}, expected, 1e-3, "torch masked")


def test_the_same_bits_are_the_same_bits() -> None:
    zero = {"zero": np.zeros(2)}
    tolerances.assert_same({"zero": np.zeros(2)}, zero, "here")
    for other in (-np.zeros(2), np.zeros(2, np.float32)):
        with pytest.raises(AssertionError, match="not the same bits"):
            tolerances.assert_same({"zero": other}, zero, "here")


def test_bounds_grow_with_depth_and_rounding() -> None:
    shallow, deep = CASES["dead channels"], CASES["four stages"]
    bounds = [tolerances.forward(dtype, deep) for dtype in ("float64", "float32", "bfloat16")]
    assert bounds == sorted(set(bounds))
    assert tolerances.forward("float64", shallow) < bounds[0] < tolerances.gradient("float64", deep) < tolerances.GOLDEN
