"""Augmentation: Pillow's pixels, the published distribution, draws from a stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backends.rng import Stream
from tests.train.images import encoded, pixels
from train.data.decode import decode
from train.data.transforms import CropAndFlip, Draws, centre_crop, crop_box, resize

SIDES = st.integers(1, 400)


def draws(position: int = 0) -> Draws:
    return Draws(0, Stream.AUGMENT, position)


def test_draws_are_a_function_of_seed_stream_and_position() -> None:
    def numbers(*key: int) -> list[float]:
        source = Draws(key[0], Stream(key[1]), key[2])
        return [source.uniform(0, 1) for _ in range(5)]

    assert numbers(0, 2, 5) == numbers(0, 2, 5)
    assert len({tuple(numbers(*key)) for key in ((0, 2, 5), (1, 2, 5), (0, 3, 5), (0, 2, 6))}) == 4


@given(SIDES, SIDES, st.integers(0, 10**6), st.sampled_from([(0.08, 1.0), (0.2, 1.0), (1.0, 1.0)]))
def test_a_crop_lies_inside_the_image(height: int, width: int, position: int, scale: tuple[float, float]) -> None:
    top, left, h, w = crop_box(height, width, scale, draws(position))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h
    assert w


def test_crops_have_the_published_shares_and_shapes() -> None:
    boxes = np.array([crop_box(400, 500, (0.2, 1.0), draws(position)) for position in range(2000)])
    shares, ratios = boxes[:, 2] * boxes[:, 3] / 200_000, boxes[:, 3] / boxes[:, 2]
    assert 0.19 < shares.min() < 0.21
    assert 0.98 < shares.max() <= 1
    assert 0.74 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.34


def test_a_long_image_falls_back_to_its_centre() -> None:
    assert crop_box(10, 400, (1.0, 1.0), draws()) == (0, (400 - 13) // 2, 10, 13)
    assert crop_box(400, 10, (1.0, 1.0), draws()) == ((400 - 13) // 2, 0, 13, 10)


def test_a_crop_has_pillows_pixels() -> None:
    image = pixels(0, 120, 160)
    top, left, h, w = crop_box(120, 160, (0.2, 1.0), draws(4))
    expected = Image.fromarray(image).crop((left, top, left + w, top + h)).resize((32, 24), Image.Resampling.BICUBIC)
    found = CropAndFlip((24, 32), (0.2, 1.0), hflip=0.0)(image, draws(4))
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_flips_come_as_often_as_asked() -> None:
    image = pixels(0)
    flipped = 0
    for position in range(400):
        plain, other = (CropAndFlip((8, 8), (0.2, 1.0), hflip)(image, draws(position)) for hflip in (0.0, 0.25))
        assert np.array_equal(other, plain) or np.array_equal(other, plain[:, ::-1])
        flipped += np.array_equal(other, plain[:, ::-1])
    assert 60 < flipped < 140


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_any_number_of_channels_is_resized_channel_by_channel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    found = resize(image, (18, 21))
    assert found.shape == (18, 21, channels)
    np.testing.assert_array_equal(found[..., :1], resize(image[..., :1], (18, 21)))


def test_floats_are_resized_as_pillow_does_without_rounding_or_clipping() -> None:
    image = (1e4 * np.random.default_rng(0).normal(size=(9, 7, 12))).astype(np.float32)
    found = resize(image, (18, 21))
    plane = Image.fromarray(image[..., 5]).resize((21, 18), Image.Resampling.BICUBIC)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 5], np.asarray(plane))
    np.testing.assert_array_equal(resize(image, (18, 21), mirrored=True), found[:, ::-1])


def test_rotations_come_as_often_as_asked_each_as_often() -> None:
    image, turns = pixels(0, 12, 12), np.zeros(4, int)
    for position in range(800):
        plain, other = (CropAndFlip((8, 8), (1.0, 1.0), 0.0, rot90=p)(image, draws(position)) for p in (0.0, 0.75))
        (turn,) = (turn for turn in range(4) if np.abs(np.rot90(plain, turn).astype(int) - other).max() <= 1)
        turns[turn] += 1
    assert turns.min() > 150
    assert turns.max() < 250


def test_a_centre_crop_keeps_the_aspect_ratio() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 255
    assert (centre_crop(image, (20, 20)) == 255).all()
    assert centre_crop(image, (20, 50)).shape == (20, 50, 3)


@pytest.mark.parametrize("position", range(6))
def test_a_scaled_jpeg_gives_nearly_the_same_crop(position: int) -> None:
    """Decoding at a half moves the box by less than a pixel of that half."""
    data = encoded(pixels(1, 800, 1000), quality=95)
    exact, scaled = (CropAndFlip((64, 48), (0.2, 1.0), 0.5, scaled) for scaled in (False, True))
    least = scaled.min_size(draws(position))
    assert exact.min_size(draws(position)) is None
    small = decode(data, 3, least)
    assert 2 * small.shape[0] <= 800
    _, _, h, w = crop_box(*small.shape[:2], (0.2, 1.0), draws(position))
    assert h >= 63  # no fewer pixels than the crop keeps, but for rounding
    assert w >= 47
    expected, other = (exact(decode(data, 3), draws(each)).astype(float) for each in (position, position + 1))
    gap, chance = (abs(expected - found).mean() for found in (scaled(small, draws(position)), other))
    assert gap < 5
    assert gap < chance / 4


def test_small_images_are_never_decoded_smaller() -> None:
    data = encoded(pixels(1, 100, 120))
    crop = CropAndFlip((64, 48), (0.2, 1.0), 0.5, scaled=True)
    for position in range(20):
        np.testing.assert_array_equal(decode(data, 3, crop.min_size(draws(position))), decode(data, 3))
