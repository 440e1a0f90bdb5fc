"""The published sizes have the published numbers of parameters, keys and multiply-accumulates."""

import dataclasses

import pytest

import spec
from tests.spec.published import SIZES, Published, every_size


@every_size
def test_depths_and_widths(preset: str, size: Published) -> None:
    encoder = spec.classifier(preset).encoder
    assert encoder.depths == size.depths
    assert encoder.dims == (size.width, 2 * size.width, 4 * size.width, 8 * size.width)


@every_size
def test_parameters(preset: str, size: Published) -> None:
    dense, masked = spec.classifier(preset), spec.fcmae(preset)
    assert spec.count(dense) == size.classifier
    assert spec.count(masked) == size.fcmae
    assert _encoder_only(masked) == size.encoder


def _encoder_only(model: spec.FCMAE) -> int:
    return sum(param.size for name, param in spec.parameters(model).items() if name.startswith("encoder."))


@every_size
def test_keys(preset: str, size: Published) -> None:
    of_block = 10 if preset.startswith("convnextv2_") else 9
    of_blocks = of_block * sum(size.depths)
    masked = spec.parameters(spec.fcmae(preset))
    assert len(spec.parameters(spec.classifier(preset))) == of_blocks + 20
    assert len(masked) == of_blocks + 21 + of_block
    assert sum(name.startswith("encoder.") for name in masked) == of_blocks + 16


@every_size
def test_multiply_accumulates(preset: str, size: Published) -> None:
    model = spec.classifier(preset)
    giga = spec.macs(model) / 1e9
    assert round(giga, 3) == size.gmacs
    assert abs(giga - size.paper) < size.paper / 100  # the paper rounds, and counts a little more than these layers
    assert round(spec.macs(model, image_size=384) / 1e9, 2) == size.gmacs_384
    assert round(spec.macs(model, image_size=(512, 512)) / 1e9, 1) == size.gmacs_512


def test_every_published_size_is_a_preset_and_only_small_is_not_published() -> None:
    assert set(spec.PRESETS) - set(SIZES) == {"convnextv2_small"}
    assert spec.PRESETS["convnextv2_small"] == {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768), "block": "v2"}


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_a_preset_is_recognised_by_its_size(preset: str) -> None:
    encoder = spec.classifier(preset, in_chans=1, patch_size=8).encoder
    assert encoder.preset == preset
    assert dataclasses.replace(encoder, depths=(1, 1, 1, 1)).preset is None
