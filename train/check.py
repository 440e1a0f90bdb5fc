"""The parity check before a run: does the engine compute the dense model on this device?

A small version of the run's model (its widths, patch and channels; one block per stage, a few
patches) computes the gradients of one batch three times: with the run's engine and with the
masked engine, both at the run's precision on the run's device, and with the masked engine in
float64 on the CPU. The second starts from parameters that are each off by one rounding error, so
the first two are about equally far from the third, whatever the device's rounding and the model's
conditioning. A wrong engine is orders of magnitude further away.
"""

from dataclasses import dataclass, replace

import numpy as np

import spec
from backends.protocol import ROUNDING, Arrays, Backend, Dtype, Engine
from backends.rng import Stream, normal, words
from train.data.masks import random_masks
from train.errors import TrainError

IMAGES, SIDE = 2, 3  # the batch size, and the most patches per side
FACTOR = 8.0
"""Largest ratio of the two distances that still counts as rounding. Largest seen in 180 random models: 4.0."""


@dataclass(frozen=True)
class Distance:
    """Relative distances from the masked float64 gradient: of the engine, and of the perturbed masked engine."""

    engine: float
    masked: float

    @property
    def bound(self) -> float:
        return FACTOR * self.masked

    def __str__(self) -> str:
        return f"{self.engine:.1e} from float64, {self.bound:.1e} allowed"


def check_engine(
    backend: Backend, model: spec.FCMAE, *, engine: Engine | None, dtype: Dtype, device: str | None
) -> Distance:
    """Compare as described above; TrainError if the engine does not compute the dense model."""
    small = miniature(model)
    images, mask, arrays = _inputs(small)

    def gradient(engine: Engine | None, dtype: Dtype, device: str | None, arrays: Arrays) -> Arrays:
        m = backend.build(small, dtype=dtype, device=device)
        backend.set_arrays(m, arrays)
        return backend.gradients(m, images, mask, engine=engine)

    exact = gradient("masked", "float64", "cpu", arrays)
    found = gradient(engine, dtype, device, arrays)
    perturbed = gradient("masked", dtype, device, _perturbed(arrays, ROUNDING[dtype]))
    distance = Distance(_distance(found, exact), _distance(perturbed, exact))
    if not distance.engine <= distance.bound:
        raise TrainError(
            f"parity check: the {engine or 'best'} engine's gradient is {distance}: this device computes another"
            " model; try --engine masked, --precision float32, or report it"
        )
    return distance


def miniature(model: spec.FCMAE) -> spec.FCMAE:
    """The model with one block per stage and at most 3 x 3 patches, masked at about the same ratio."""
    encoder = replace(model.encoder, depths=(1,) * len(model.encoder.depths))
    rows, columns = (min(SIDE, side) for side in model.grid)
    patch = encoder.patch_size
    size = (max(2, rows) * patch, columns * patch) if columns == 1 else (rows * patch, columns * patch)
    small = replace(model, encoder=encoder, image_size=size, decoder_depth=1)
    patches = small.grid[0] * small.grid[1]
    visible = min(max(1, spec.visible_patches(small)), patches - 1)
    return replace(small, mask_ratio=spec.ratio_for(visible, patches, small.mask_rounding))


def _inputs(model: spec.FCMAE) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """Images, masks, and parameters as if trained: unit gain, and a GRN that is not the identity."""
    height, width = model.image_size
    table = spec.parameters(model)
    arrays = {name: _draw(index + 1, param.shape) for index, (name, param) in enumerate(table.items())}
    for name, param in table.items():
        fan_in = int(np.prod(param.shape[1:]))
        arrays[name] *= fan_in**-0.5 if param.decays else 0.5
        arrays[name] += param.init == 1.0
    images = _draw(0, (IMAGES, height, width, model.encoder.in_chans))
    return images, random_masks(0, np.arange(IMAGES), model.grid, spec.visible_patches(model)), arrays


def _perturbed(arrays: Arrays, eps: float) -> Arrays:
    """Every value moved up or down by one rounding error."""
    own = len(arrays) + 1  # past the draws of `_inputs`
    signs = {name: np.sign(_draw(own + index, array.shape)) for index, (name, array) in enumerate(arrays.items())}
    return {name: array * (1 + eps * signs[name]) for name, array in arrays.items()}


def _draw(index: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return normal(words(0, Stream.INIT, index, 2 * count)).reshape(shape)


def _distance(found: Arrays, exact: Arrays) -> float:
    """The largest relative error over the arrays, in the Euclidean norm."""
    return max(float(np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])) for name in exact)
