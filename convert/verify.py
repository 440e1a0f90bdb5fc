"""Do two checkpoints compute the same function? Run both in float64 on the same images, compare layer by layer."""

from dataclasses import dataclass

import numpy as np

import backends
from convert import surgery
from convert.arrays import entries_of
from convert.build import build
from convert.checkpoint import Checkpoint
from convert.errors import ConvertError
from convert.report import name_of
from spec import FCMAE

BOUND = float(np.finfo(np.float64).eps) ** 0.5
"""Half of float64's digits. Rounding leaves a millionth of it; a wrong layout, epsilon or dtype is far above."""

GRID = (2, 3)
VISIBLE = 2  # patches per image, with a mask
IMAGES = 2


@dataclass(frozen=True)
class Verdict:
    """Layer -> largest gap relative to its largest entry, in order; and the backends that ran A and B."""

    gaps: dict[str, float]
    backends: tuple[str, str]

    @property
    def same(self) -> bool:
        return max(self.gaps.values()) <= BOUND

    @property
    def first(self) -> str | None:
        """The first layer that differs."""
        return next((name for name, gap in self.gaps.items() if gap > BOUND), None)


def verify(a: Checkpoint, b: Checkpoint, seed: int = 0) -> Verdict:
    """Compare two checkpoints, each in a framework of its own if two are installed.

    Parts that only one of them has (decoder, norm, head) are left out of the comparison.
    ConvertError when the models have different shapes.
    """
    installed = backends.installed()
    if not installed:
        raise ConvertError("verify: neither torch nor jax is installed; pip install 'twinnext[torch]'")
    if _shapes(a) != _shapes(b):
        a, b = surgery.encoder_only(a), surgery.encoder_only(b)
    if _shapes(a) != _shapes(b):
        raise ConvertError(f"verify: {name_of(a.model)} and {name_of(b.model)} have different shapes")
    first, last = _run(a, installed[0], seed), _run(b, installed[-1], seed)
    return Verdict({name: gap(first[name], last[name]) for name in first}, (installed[0], installed[-1]))


def _run(checkpoint: Checkpoint, backend: str, seed: int) -> dict[str, np.ndarray]:
    """The output of every step, under its path, and the model's own outputs."""
    framework, model = backends.load(backend), checkpoint.model
    m = build(checkpoint, backend, dtype="float64")
    rng = np.random.default_rng(seed)
    patch = model.encoder.patch_size
    images = rng.normal(size=(IMAGES, GRID[0] * patch, GRID[1] * patch, model.encoder.in_chans))
    mask = None
    if isinstance(model, FCMAE):
        ranks = np.stack([rng.permutation(GRID[0] * GRID[1]) for _ in range(IMAGES)])
        mask = (ranks >= VISIBLE).astype(np.uint8).reshape(IMAGES, *GRID)
    found = framework.forward(m, images, mask, intermediates=True)
    steps = [name for name, _ in model.steps]
    return {name: found[name] for name in [*steps, *(name for name in found if name not in steps)]}


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {path: entry.shape for path, entry in entries_of(checkpoint.arrays).items()}


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest entry."""
    scale = float(np.abs(expected).max(initial=0.0))
    error = float(np.abs(found - expected).max(initial=0.0))
    return error / scale if scale else (np.inf if error else 0.0)
