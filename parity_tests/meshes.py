"""A process with eight CPU devices: one update of a batch, spread over devices and micro-batches in every way.

`python -m parity_tests.meshes FILE` leaves the states in an npz file, named way/part/parameter.
"""

import os
import sys

import numpy as np

import spec
from backends.protocol import Batch, Optimizer, TrainerOptions

WAYS = {"8 x 1": (8, False), "2 x 4": (2, False), "8 x 1, split": (8, True)}
"""Devices x micro-batches -> devices, and whether the state is split over them."""

ALONE = "1 x 8"
ROWS, EVALUATED = 16, 5

MODEL = spec.fcmae(depths=(1, 1), dims=(8, 64), decoder_dim=16, patch_size=8, image_size=32, stem_stride=4)


def batches(count: int, rows: int = ROWS) -> list[Batch]:
    """The same rows in `count` micro-batches."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    ranks = rng.random((ROWS, 16)).argsort(1).argsort(1)
    mask = (ranks >= spec.visible_patches(MODEL)).reshape(ROWS, 4, 4).astype(np.uint8)
    parts = np.split(np.arange(ROWS)[:rows], count)
    return [Batch(images=images[part], mask=mask[part]) for part in parts]


def padded(count: int) -> list[Batch]:
    """The first EVALUATED rows, padded to `count` micro-batches of the usual size."""
    (whole,) = batches(1, EVALUATED)
    rows = np.minimum(np.arange(ROWS), EVALUATED - 1)
    weights = np.where(np.arange(ROWS) < EVALUATED, ROWS / EVALUATED, 0.0)
    parts = np.split(np.arange(ROWS), count)
    return [Batch(images=whole["images"][rows[p]], mask=whole["mask"][rows[p]], weights=weights[p]) for p in parts]


def main(path: str) -> None:
    """Write the states after two updates, and what is seen in a few rows then."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    import jax
    from jax.sharding import Mesh

    from backends.jax import Trainer
    from backends.jax.cluster import Processes

    optimizer = Optimizer(clip_grad=0.01, ema_decay=0.9)
    found = {}
    for way, (devices, shard) in {ALONE: (1, False), **WAYS}.items():
        mesh = Mesh(np.array(jax.devices("cpu")[:devices]), ("data",))
        trainer = Trainer(MODEL, optimizer, TrainerOptions(dtype="float64", shard=shard), cluster=Processes(mesh))
        split = [name for name, value in trainer.state.params.items() if not value.is_fully_replicated]
        assert bool(split) == shard, way
        for _ in range(2):
            figures = trainer.step(batches(8 // devices), 1e-3)
        state = trainer.export()
        trainer.restore(state)
        evaluated = trainer.evaluate(batches(1, EVALUATED)[0], ema=True)
        parts = {part: getattr(state, part) for part in ("params", "mu", "nu", "ema")} | {"evaluated": evaluated}
        parts["figures"] = {name: np.asarray(value) for name, value in figures.items()}
        partial = trainer.step(batches(1, EVALUATED) if way == ALONE else padded(8 // devices), 1e-3)
        parts["partial"] = {**trainer.export().params, "loss": np.asarray(partial["loss"])}
        found |= {f"{way}/{part}/{name}": value for part, named in parts.items() for name, value in named.items()}
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
