"""The learning rate, update by update, as the released script sets it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import Config
from train.errors import TrainError
from train.schedule import Schedule


@given(
    images=st.integers(64, 2000),
    batch=st.integers(1, 16),
    frequency=st.integers(1, 4),
    epochs=st.integers(2, 30),
    warmup=st.integers(0, 5),
)
def test_every_update_takes_the_published_rate(
    images: int, batch: int, frequency: int, epochs: int, warmup: int
) -> None:
    """The published loop: once per update, at the fractional epoch of its first micro-batch."""
    config = Config.from_flags(
        batch_size=batch, update_freq=frequency, epochs=epochs, warmup_epochs=warmup, min_lr=1e-6
    )
    schedule = Schedule.of(config, images)
    loader = images // (batch * frequency) * frequency  # iterations of an epoch; the rest make no update
    peak = 1.5e-4 * batch * frequency / 256
    expected = []
    for epoch in range(epochs):
        for iteration in range(0, loader, frequency):
            now = iteration / loader + epoch
            cosine = 0.5 * (1.0 + math.cos(math.pi * (now - warmup) / max(epochs - warmup, 1)))
            expected.append(peak * now / warmup if now < warmup else 1e-6 + (peak - 1e-6) * cosine)
    if warmup < epochs:
        assert [schedule.lr(update) for update in range(schedule.updates)] == pytest.approx(expected)


def test_max_steps_ends_the_cosine_and_stop_at_step_does_not() -> None:
    short = Schedule.of(Config.from_flags(batch_size=10, warmup_epochs=0, max_steps=30), images=100)
    assert short.updates == 30
    assert short.lr(30) == 0
    assert Schedule.of(Config.from_flags(batch_size=10, stop_at_step=30), images=100).updates == 8000


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    schedule = Schedule.of(Config.from_flags(batch_size=10, warmup_epochs=40, max_steps=15), images=100)
    rates = [schedule.lr(update) for update in range(15)]
    assert rates == sorted(rates)
    assert schedule.highest_lr() == rates[-1] < schedule.peak
    longer = Schedule.of(Config.from_flags(batch_size=10, warmup_epochs=0.5), images=100)
    assert longer.highest_lr() == longer.peak == max(longer.lr(update) for update in range(longer.updates))


def test_data_smaller_than_an_update_is_refused() -> None:
    with pytest.raises(TrainError, match=r"an update takes 128 images, the data has 100; lower one"):
        Schedule.of(Config.from_flags(batch_size=64, update_freq=2), images=100)
