"""Batches made ahead of time, in order.

A batch is a pure function of its number, so nothing here has a state to save and any number
of workers gives the same batches. (grain was tried for this: the same speed, but importing it
imports jax, also into torch runs, which costs 150 MB a process.) Threads suffice for images,
whose decoding and resizing release the interpreter's lock; processes are for Python-heavy work.
"""

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from train.data.worker import Worker

T = TypeVar("T")
AHEAD = 2  # batches a thread: one in the making, one waiting
STALLED = 30.0  # seconds without a batch after which the user hears of it, and again after twice as many
POLL = 0.2  # seconds between two looks at whether to go on waiting


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Watch:
    """What happens while a run waits for a batch.

    say: a line for the user; describe: what a batch, by number, is made of; leave: whether the
    run wants no more batches, asked a few times a second.
    """

    say: Callable[[str], None] = print
    describe: Callable[[int], str] = "batch {}".format
    leave: Callable[[], bool] = _never


def prefetch(
    make: Callable[[int], T], start: int, stop: int, workers: int, kind: str = "thread", watch: Watch | None = None
) -> Generator[T, None, None]:
    """make(start), ..., make(stop - 1), in order, by `workers` threads or processes."""
    return (_by_threads if kind == "thread" else _by_processes)(make, start, stop, workers, watch or Watch())


def _by_threads(
    make: Callable[[int], T], start: int, stop: int, workers: int, watch: Watch
) -> Generator[T, None, None]:
    """Daemons, so that one that hangs on a dead disk does not keep the process from ending."""
    tasks: SimpleQueue[tuple[Future[T], int] | None] = SimpleQueue()
    threads = [Thread(target=_work, args=(make, tasks), daemon=True, name=f"data-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    numbers = iter(range(start, stop))
    queue = deque(_ask(tasks, number) for number in islice(numbers, AHEAD * workers))
    try:
        for number in range(start, stop):
            if not _ready(lambda seconds: bool(wait([queue[0]], seconds).done), number, watch):
                return
            made = queue.popleft().result()
            queue.extend(_ask(tasks, number) for number in islice(numbers, 1))
            yield made
    finally:
        for future in queue:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(POLL)


def _ask(tasks: "SimpleQueue[tuple[Future[T], int] | None]", number: int) -> Future[T]:
    future: Future[T] = Future()
    tasks.put((future, number))
    return future


def _work(make: Callable[[int], T], tasks: "SimpleQueue[tuple[Future[T], int] | None]") -> None:
    """In a thread: make what is asked for, until nothing is."""
    while task := tasks.get():
        future, number = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(make(number))
            except BaseException as error:
                future.set_exception(error)


def _by_processes(
    make: Callable[[int], T], start: int, stop: int, workers: int, watch: Watch
) -> Generator[T, None, None]:
    """Worker w makes start + w, start + w + workers, ...: one is waiting to be taken, one in the making."""
    crew: list[Worker[T]] = []
    try:
        for first in range(start, min(start + workers, stop)):
            crew.append(Worker(make, range(first, stop, workers), watch.say))
        for number in range(start, stop):
            worker = crew[(number - start) % workers]
            if not _ready(worker.ready, number, watch):
                return
            yield worker.take()
    finally:
        for worker in crew:
            worker.end()


def _ready(ready: Callable[[float], bool], number: int, watch: Watch) -> bool:
    """Wait for a batch; whether it has come, rather than the wish to leave."""
    began, patience = time.monotonic(), STALLED
    while not ready(POLL):
        if watch.leave():
            return False
        waited = time.monotonic() - began
        if waited >= patience:
            patience *= 2
            with suppress(OSError):
                watch.say(f"no batch for {waited:.0f} s: {watch.describe(number)}")
    return True
