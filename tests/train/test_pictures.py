"""Reconstructions: a perfect prediction is the image, visible pixels are never touched."""

import numpy as np
import pytest

import spec
from parity_tests.tolerances import EPS, assert_close
from train.report.pictures import caption, patchify, reconstruct, triptych, unpatchify

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def model(norm_target: bool) -> spec.FCMAE:
    return spec.fcmae(depths=(1, 1), dims=(4, 8), stem_stride=2, image_size=(16, 24), norm_target=norm_target)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, (3, 4, 6), dtype=np.uint8)


def test_patches_are_in_the_order_of_the_prediction(images: np.ndarray) -> None:
    patches = patchify(images, 4)
    assert patches.shape == (3, 4, 6, 48)
    np.testing.assert_array_equal(patches[1, 2, 3].reshape(4, 4, 3), images[1, 8:12, 12:16])
    np.testing.assert_array_equal(unpatchify(patches, 4), images)


@pytest.mark.parametrize("norm_target", [True, False])
def test_a_perfect_prediction_gives_the_image(images: np.ndarray, mask: np.ndarray, norm_target: bool) -> None:
    perfect = patchify((images / 255 - MEAN) / STD, 4)
    if norm_target:
        variance = perfect.var(-1, ddof=1, keepdims=True)
        perfect = (perfect - perfect.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-6)
    found = reconstruct(images, mask, perfect, model(norm_target), MEAN, STD)
    np.testing.assert_array_equal(found, images)


def test_predictions_show_at_removed_patches_only(images: np.ndarray, mask: np.ndarray) -> None:
    white = np.full((3, 4, 6, 48), 1e3)
    found = reconstruct(images, mask, white, model(norm_target=False), MEAN, STD)
    removed = mask.repeat(4, 1).repeat(4, 2)[..., None] != 0
    np.testing.assert_array_equal(found, np.where(removed, 255, images))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_sheet_shows_three_rows_of_any_channels(images: np.ndarray, mask: np.ndarray, channels: int) -> None:
    shown = images.repeat(2, -1)[..., :channels]
    sheet = np.asarray(triptych(shown, mask, shown, patch=4))
    expected = shown[0] if channels >= 3 else shown[0, ..., :1].repeat(3, -1)
    assert _find(sheet, expected[..., :3].repeat(6, 0).repeat(6, 1)) == 2
    assert sheet.ndim == 3


@pytest.mark.parametrize("norm_target", [True, False])
def test_a_perfect_prediction_of_floats_keeps_their_unit(mask: np.ndarray, norm_target: bool) -> None:
    images = np.random.default_rng(0).normal(500, 100, (3, 16, 24, 3)).astype(np.float32)
    mean, std = (400.0,), (50.0,)
    perfect = patchify((images - 400.0) / 50.0, 4)
    if norm_target:
        perfect = (perfect - perfect.mean(-1, keepdims=True)) / np.sqrt(perfect.var(-1, ddof=1, keepdims=True) + 1e-6)
    found = reconstruct(images, mask, perfect, model(norm_target), mean, std)
    assert_close(found, images, 1e3 * EPS["float32"], "images")


def test_other_images_are_stretched_between_quantiles_which_is_said(mask: np.ndarray) -> None:
    images = np.random.default_rng(0).normal(500, 100, (3, 16, 24, 5)).astype(np.float32)
    low, high = np.percentile(images, (2, 98), axis=(0, 1, 2))
    shown = np.rint(255 * ((images - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    for chosen in (None, (4, 2, 0), (3,)):
        sheet = np.asarray(triptych(images, mask, images, patch=4, chosen=chosen))
        expected = shown[0][..., list(chosen or (0, 1, 2))]
        expected = expected.repeat(3 // expected.shape[-1], -1)
        assert _find(sheet, expected.repeat(6, 0).repeat(6, 1)) == 2
        assert (sheet[-20:] != 255).any()
    assert caption(5, "float32", (3,)) == "channels 3, each stretched from its 2 to its 98 % quantile"
    assert caption(5, "uint8") == "channels 0 1 2"
    assert caption(3, "uint8") == caption(1, "uint8") == ""


def _find(sheet: np.ndarray, tile: np.ndarray) -> int:
    """How often a tile appears in the first column of the sheet."""
    left = next(
        x for x in range(sheet.shape[1]) if np.array_equal(sheet[24 : 24 + len(tile), x : x + tile.shape[1]], tile)
    )
    column = sheet[:, left : left + tile.shape[1]]
    return sum(np.array_equal(column[top : top + len(tile)], tile) for top in range(len(column) - len(tile) + 1))
