"""One update of a batch is one update, however many devices and micro-batches share it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
import spec
from parity_tests import meshes, tolerances
from parity_tests.strategies import Case

pytestmark = pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed")
ROOT = Path(__file__).parents[1]
CASE = Case(meshes.MODEL, (4, 4), spec.visible_patches(meshes.MODEL), meshes.ROWS)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("meshes") / "states.npz"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-m", "parity_tests.meshes", str(path)], cwd=ROOT, env=environment, check=True)
    with np.load(path) as file:
        return dict(file)


def of(states: dict[str, np.ndarray], way: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{way}/"): array for name, array in states.items() if name.startswith(f"{way}/")}


@pytest.mark.parametrize("way", meshes.WAYS)
def test_every_way_is_the_same_update(states: dict[str, np.ndarray], way: str) -> None:
    bound = tolerances.gradient("float64", CASE)
    tolerances.assert_all_close(of(states, way), of(states, meshes.ALONE), bound, way)


def test_a_padded_update_is_one_of_its_own_images(states: dict[str, np.ndarray]) -> None:
    """Compared above in every way, with micro-batches of padding alone; it is another than a whole one."""
    alone = of(states, meshes.ALONE)
    assert alone["partial/loss"] != alone["figures/loss"]
    assert {f"{way}/partial/loss" for way in meshes.WAYS} <= states.keys()


def test_every_row_of_a_short_batch_is_evaluated(states: dict[str, np.ndarray]) -> None:
    assert states["8 x 1/evaluated/prediction"].shape[0] == meshes.EVALUATED
