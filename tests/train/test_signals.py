"""Signals: the first one ends a run after a whole update, the second one at once, and neither loses an update."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.cluster import SingleProcess
from tests.train import fake
from tests.train.fake import assert_same_run, last, metrics
from tests.train.images import tree
from tests.train.victim import Victim, saved
from train import loop as running
from train.loop import Stopped
from train.signals import NAMES, Signals


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=42)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_noted_and_its_handler_put_back(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.first is None
        os.kill(os.getpid(), number)
        assert signals.first == name
    assert signal.getsignal(number) == before


def test_a_launcher_may_repeat_a_signal_and_a_time_limit_follow_a_warning() -> None:
    with Signals() as signals:
        for name in ("SIGUSR1", "SIGTERM", "SIGTERM"):
            os.kill(os.getpid(), getattr(signal, name))
    assert signals.first == "SIGUSR1"


def test_handlers_are_the_main_threads() -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    within: list[object] = []

    def install() -> None:
        with Signals():
            within.extend(signal.getsignal(getattr(signal, name)) for name in NAMES)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert within == before


def test_a_run_stopped_three_times_ends_bit_identical(images: Path, tmp_path: Path) -> None:
    flags = ("--print_freq", "1")
    fake.train(images, tmp_path / "whole", *flags)
    words = ("tests.train.fake", str(images), str(tmp_path / "run"), *flags)
    for count, name in enumerate(NAMES, 1):
        with Victim(*words, FAKE_STEP_SECONDS="0.1") as victim:
            assert victim.wait_for(lambda count=count: len(_lines(tmp_path / "run")) > 2 * count)
            victim.send(name)
            status, said = victim.end()
        assert status == 75
        step = int(saved(tmp_path / "run")[-1].removeprefix("step-"))
        assert f"train: stopped by {name} after step {step}, saved; the same command continues from here" in said
        assert len(_lines(tmp_path / "run")) == step < 28
    fake.train(images, tmp_path / "run", *flags)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def _lines(run_dir: Path) -> list[str]:
    file = run_dir / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def test_a_second_sigterm_ends_the_process_at_once(images: Path, tmp_path: Path) -> None:
    with Victim("tests.train.fake", str(images), str(tmp_path / "run"), FAKE_STEP_SECONDS="60") as victim:
        assert victim.wait_for((tmp_path / "run" / "metrics.jsonl").exists)
        time.sleep(0.3)
        victim.send("SIGTERM")
        time.sleep(1.2)
        assert victim.process.poll() is None
        victim.send("SIGTERM")
        assert victim.end()[0] == -signal.SIGTERM


class Two(SingleProcess):
    """Process 0 of two; asked(n) returns whether the other one has had a signal at the n-th call."""

    processes = 2

    def __init__(self, asked: Callable[[int], bool]) -> None:
        object.__setattr__(self, "asked", asked)
        object.__setattr__(self, "asks", [])

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        if values.dtype != bool:
            return super().all_reduce_sum(values)
        self.asks.append(values)
        return values + float(self.asked(len(self.asks)))


def test_processes_stop_at_the_same_update(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "AGREE", 5)
    cluster = Two(lambda asks: asks == 3)
    monkeypatch.setattr(fake.Backend, "init_cluster", staticmethod(lambda device: cluster))
    stopped = fake.train(images, tmp_path, "--batch_size", "6")
    assert stopped == Stopped(15, "a signal to another process", True)
    assert last(tmp_path).step == 15


def test_a_process_that_is_asked_waits_for_the_others(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "AGREE", 5)
    monkeypatch.setattr(fake.Backend, "init_cluster", staticmethod(lambda device: Two(lambda asks: False)))
    step = fake.Trainer.step

    def signalled(self: fake.Trainer, *args: object) -> object:
        if self.state.t == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(fake.Trainer, "step", signalled)
    assert fake.train(images, tmp_path, "--batch_size", "6") == Stopped(5, "SIGTERM", True)


def test_what_is_not_to_be_saved_is_not(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = fake.Trainer.step

    def signalled(self: fake.Trainer, *args: object) -> object:
        os.kill(os.getpid(), signal.SIGUSR2)
        return step(self, *args)

    monkeypatch.setattr(fake.Trainer, "step", signalled)
    stopped = fake.train(images, tmp_path, "--save_ckpt", "False")
    assert str(stopped) == "stopped by SIGUSR2 after step 1, not saved (--save_ckpt False)"
    assert saved(tmp_path) == []
