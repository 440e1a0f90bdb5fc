"""Prefetch batches in order, with threads or processes.

A batch is a pure function of its index, so there is no state to save, and any number of workers
gives the same batches. (grain has the same speed, but importing it imports jax, which costs
torch runs 150 MB per process.) Threads are enough for images: decoding and resizing release the
GIL. Processes are for Python-heavy work.
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
AHEAD = 2  # batches per thread: one in progress, one finished
STALLED = 30.0  # seconds without a batch before the first warning; the next ones come after 2, 4, 8... times that
POLL = 0.2  # seconds between two checks of should_stop


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Watch:
    """What to do while a run waits for a batch.

    log: print a line; describe: the contents of a batch, by index; should_stop: whether the run
    wants no more batches, asked every POLL seconds.
    """

    log: Callable[[str], None] = print
    describe: Callable[[int], str] = "batch {}".format
    should_stop: Callable[[], bool] = _never


def prefetch(
    make: Callable[[int], T], start: int, stop: int, workers: int, kind: str = "thread", watch: Watch | None = None
) -> Generator[T, None, None]:
    """Yield make(start), ..., make(stop - 1) in order, computed by `workers` threads or processes."""
    return (_by_threads if kind == "thread" else _by_processes)(make, start, stop, workers, watch or Watch())


def _by_threads(
    make: Callable[[int], T], start: int, stop: int, workers: int, watch: Watch
) -> Generator[T, None, None]:
    """Daemon threads, so that one that hangs on a dead disk does not keep the process alive."""
    tasks: SimpleQueue[tuple[Future[T], int] | None] = SimpleQueue()
    threads = [Thread(target=_run_thread, args=(make, tasks), daemon=True, name=f"data-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    numbers = iter(range(start, stop))
    queue = deque(_submit(tasks, number) for number in islice(numbers, AHEAD * workers))
    try:
        for number in range(start, stop):
            if not _ready(lambda seconds: bool(wait([queue[0]], seconds).done), number, watch):
                return
            made = queue.popleft().result()
            queue.extend(_submit(tasks, number) for number in islice(numbers, 1))
            yield made
    finally:
        for future in queue:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(POLL)


def _submit(tasks: "SimpleQueue[tuple[Future[T], int] | None]", number: int) -> Future[T]:
    future: Future[T] = Future()
    tasks.put((future, number))
    return future


def _run_thread(make: Callable[[int], T], tasks: "SimpleQueue[tuple[Future[T], int] | None]") -> None:
    """Thread body: run tasks until None arrives."""
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
    """Worker w makes start + w, start + w + workers, ...; each has one batch finished and one in progress."""
    processes: list[Worker[T]] = []
    try:
        for first in range(start, min(start + workers, stop)):
            processes.append(Worker(make, range(first, stop, workers), watch.log))
        for number in range(start, stop):
            worker = processes[(number - start) % workers]
            if not _ready(worker.ready, number, watch):
                return
            yield worker.take()
    finally:
        for worker in processes:
            worker.end()


def _ready(ready: Callable[[float], bool], number: int, watch: Watch) -> bool:
    """Wait for a batch. Return True when it is ready, False when the run should stop."""
    began, patience = time.monotonic(), STALLED
    while not ready(POLL):
        if watch.should_stop():
            return False
        waited = time.monotonic() - began
        if waited >= patience:
            patience *= 2
            with suppress(OSError):
                watch.log(f"no batch for {waited:.0f} s: {watch.describe(number)}")
    return True
