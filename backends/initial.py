"""The first value of every parameter, drawn once in numpy so that both frameworks start bit-identical."""

import math

import numpy as np

import spec
from backends.protocol import Arrays
from backends.rng import Stream, normal, words

STD = 0.02
CUT = 2.0  # absolute, as published: a hundred standard deviations


def initial_arrays(model: spec.Model, seed: int = 0, dtype: type = np.float32) -> Arrays:
    """Canonical name -> first value: weights truncated normal, biases 0, norms 1 and 0, GRN 0 and 0."""
    table = spec.parameters(model)
    return {name: _draw(param, seed, index).astype(dtype) for index, (name, param) in enumerate(table.items())}


def _draw(param: spec.Param, seed: int, index: int) -> np.ndarray:
    if isinstance(param.init, float):
        return np.full(param.shape, param.init)
    values = STD * normal(words(seed, Stream.INIT, index, 2 * math.prod(param.shape)))
    return np.clip(values, -CUT, CUT).reshape(param.shape)
