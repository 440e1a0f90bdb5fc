"""Batches sent to a device in several copies."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from backends.jax import trainer  # noqa: E402


@pytest.mark.parametrize("copies", [1, 3, 8])
def test_the_rows_arrive_in_order(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows: pieces of two and one, and more copies than rows."""
    monkeypatch.setattr(trainer, "COPIES", {"cpu": copies})
    monkeypatch.setattr(trainer, "LARGE", 0)
    mesh = Mesh(jax.devices("cpu")[:1], (trainer.DATA,))
    images = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    found = trainer._spread({"images": images}, mesh)["images"]
    assert np.array_equal(found, images)
    assert found.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec(trainer.DATA)), images.ndim)
