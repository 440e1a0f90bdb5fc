"""The first arrays: what each distribution gives, from the same words."""

import math

import numpy as np
import pytest

import spec
from backends.initial import CUT, initial_arrays
from backends.rng import Stream, normal, uniform, words

MODEL = spec.fcmae(depths=(1, 1), dims=(24, 32), decoder_dim=16, image_size=16)


def raw(model: spec.Model, name: str, seed: int, count: int) -> np.ndarray:
    return words(seed, Stream.INIT, list(spec.parameters(model)).index(name), count)


@pytest.mark.parametrize("model", [MODEL, spec.classifier("convnextv2_atto", num_classes=2, head_init_scale=0.001)])
def test_small_deviations_are_normal_draws_as_they_are(model: spec.Model) -> None:
    for name, array in initial_arrays(model, 3, np.float64).items():
        init = spec.parameters(model)[name].init
        if isinstance(init, spec.Draw):
            values = init.scale * normal(raw(model, name, 3, 2 * array.size))
            np.testing.assert_array_equal(array.ravel(), values, name)


def test_a_deviation_of_1_is_truncated_by_drawing_again() -> None:
    model, name = spec.fcmae(depths=(1, 1), dims=(24, 32), image_size=16, init="released"), "pred.weight"
    found = initial_arrays(model, 3, np.float64)[name].ravel()
    first = normal(raw(model, name, 3, 2 * found.size))
    inside = abs(first) <= CUT
    np.testing.assert_array_equal(found[inside], first[inside])
    assert not inside.all()
    assert abs(found).max() < CUT
    assert len(np.unique(found)) == found.size
    again = raw(model, name, 3, 2 * (found.size + (~inside).sum()))[2 * found.size :]
    kept = abs(normal(again)) <= CUT
    np.testing.assert_array_equal(found[~inside][kept], normal(again)[kept])


def test_uniform_weights_and_biases_fill_their_interval() -> None:
    model = spec.fcmae(depths=(1, 1), dims=(24, 32), image_size=16, init="torch_decoder")
    arrays = initial_arrays(model, 3, np.float64)
    for name, inputs in (("proj.weight", 32), ("proj.bias", 32), ("decoder.0.dwconv.weight", 49)):
        found, bound = arrays[name], 1 / math.sqrt(inputs)
        values = uniform(raw(model, name, 3, found.size))
        np.testing.assert_array_equal(found.ravel(), inputs**-0.5 * (2 * values - 1))
        assert -bound <= found.min() < -0.8 * bound, name
        assert 0.8 * bound < found.max() <= bound, name
