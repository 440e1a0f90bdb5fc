"""The parity check before a run: passes the real engines, and fails a wrong one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backends
import spec
from train.check import check_engine, miniature
from train.errors import TrainError

MODELS = {
    "digits": spec.fcmae(depths=(1, 1, 1), dims=(24, 48, 96), in_chans=1, patch_size=8, image_size=32, decoder_dim=96),
    "long": spec.fcmae(depths=(2, 3), dims=(8, 16), stem_stride=2, image_size=(4, 40), decoder_dim=8),
    "batch scope": spec.fcmae(
        depths=(1, 2), dims=(8, 8), stem_stride=2, image_size=24, decoder_dim=8, grn_scope="batch"
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_visible_engine_passes(name: str, dtype: Any) -> None:
    distance = check_engine(backends.load("torch"), MODELS[name], engine="visible", dtype=dtype, device=None)
    assert 0 < distance.engine <= distance.bound


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("wrong", ["stages.0.0.dwconv.weight", "grn.gamma", "mask_token"])
def test_a_gradient_off_by_a_thousandth_is_refused(wrong: str, dtype: Any) -> None:
    real = backends.load("torch")

    def gradients(m: Any, images: np.ndarray, mask: np.ndarray, *, engine: str | None = None) -> dict[str, np.ndarray]:
        found = real.gradients(m, images, mask, engine=engine)
        off = {name: array * 1.001 for name, array in found.items() if name.endswith(wrong)}
        assert off
        return found if engine == "masked" else found | off

    planted = SimpleNamespace(build=real.build, set_arrays=real.set_arrays, gradients=gradients)
    with pytest.raises(TrainError, match=r"parity check: the visible engine's gradient is .* from float64") as error:
        check_engine(planted, MODELS["digits"], engine="visible", dtype=dtype, device=None)
    assert "\n" not in str(error.value)


def test_a_gradient_that_is_no_number_is_refused() -> None:
    real = backends.load("torch")

    def gradients(m: Any, images: np.ndarray, mask: np.ndarray, *, engine: str | None = None) -> dict[str, np.ndarray]:
        found = real.gradients(m, images, mask, engine=engine)
        return found if engine == "masked" else {name: array * np.nan for name, array in found.items()}

    planted = SimpleNamespace(build=real.build, set_arrays=real.set_arrays, gradients=gradients)
    with pytest.raises(TrainError, match="parity check"):
        check_engine(planted, MODELS["digits"], engine=None, dtype="float32", device=None)


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_a_miniature_keeps_widths_and_patches_and_loses_the_rest(preset: str) -> None:
    model = spec.fcmae(preset)
    small = miniature(model)
    assert (small.encoder.dims, small.encoder.patch_size) == (model.encoder.dims, model.encoder.patch_size)
    assert small.encoder.depths == (1, 1, 1, 1)
    assert small.image_size == (96, 96)
    assert spec.visible_patches(small) == 3
