"""The first value of every parameter, drawn once in numpy so that both frameworks start bit-identical."""

import math

import numpy as np

import spec
from backends.protocol import Arrays
from backends.rng import Stream, normal, uniform, words

CUT = 2.0  # absolute, as published: a hundred standard deviations of 0.02, two of the released code's 1


def initial_arrays(model: spec.Model, seed: int = 0, dtype: type = np.float32) -> Arrays:
    """Canonical name -> first value, drawn as `spec.parameters` says: of weights, truncated normal by default."""
    table = spec.parameters(model)
    return {name: _draw(param, seed, index).astype(dtype) for index, (name, param) in enumerate(table.items())}


def _draw(param: spec.Param, seed: int, index: int) -> np.ndarray:
    if isinstance(param.init, float):
        return np.full(param.shape, param.init)
    kind, scale = param.init.kind, param.init.scale
    raw = words(seed, Stream.INIT, index, 2 * math.prod(param.shape))
    if kind == "uniform":
        return scale * (2 * uniform(raw[: raw.size // 2]) - 1).reshape(param.shape)
    values, used = scale * normal(raw), raw.size
    while kind == "trunc_normal" and (beyond := np.flatnonzero(abs(values) > CUT)).size:
        end = used + 2 * beyond.size
        values[beyond] = scale * normal(words(seed, Stream.INIT, index, end)[used:])
        used = end
    return values.reshape(param.shape)
