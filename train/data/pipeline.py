"""Batches made ahead of time, in order.

A batch is a pure function of its number, so nothing here has a state to save and any number
of workers gives the same batches. (grain was tried for this: the same speed, but importing it
imports jax, also into torch runs, which costs 150 MB a process.) Threads suffice for images,
whose decoding and resizing release the interpreter's lock; processes are for Python-heavy work.
"""

import signal
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from train.errors import TrainError

T = TypeVar("T")
AHEAD = 2  # batches a thread: one in the making, one waiting


def prefetch(
    make: Callable[[int], T], start: int, stop: int, workers: int, kind: str = "thread"
) -> Generator[T, None, None]:
    """make(start), ..., make(stop - 1), in order, by `workers` threads or processes."""
    return (_by_threads if kind == "thread" else _by_processes)(make, start, stop, workers)


def _by_threads(make: Callable[[int], T], start: int, stop: int, workers: int) -> Generator[T, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="data")
    numbers = iter(range(start, stop))
    try:
        queue = deque(pool.submit(make, number) for number in islice(numbers, AHEAD * workers))
        while queue:
            made = queue.popleft().result()
            queue.extend(pool.submit(make, number) for number in islice(numbers, 1))
            yield made
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _by_processes(make: Callable[[int], T], start: int, stop: int, workers: int) -> Generator[T, None, None]:
    """Worker w makes start + w, start + w + workers, ... and waits in its pipe until one is taken."""
    context = get_context("spawn")
    readers, processes = [], []
    try:
        for worker in range(workers):
            reader, writer = context.Pipe(duplex=False)
            numbers = range(start + worker, stop, workers)
            process = context.Process(target=_serve, args=(make, numbers, writer), daemon=True)
            process.start()
            writer.close()
            readers.append(reader)
            processes.append(process)
        for number in range(start, stop):
            yield _receive(readers[(number - start) % workers])
    finally:
        for process in processes:
            process.kill()


def _receive(reader: Connection) -> Any:
    try:
        made, error = reader.recv()
    except EOFError:
        raise TrainError("--worker_type process: a data worker died; the machine may be short of memory") from None
    if error is not None:
        raise error
    return made


def _serve(make: Callable[[int], T], numbers: range, writer: Connection) -> None:
    """In a worker: deaf to the signals that schedulers send to every process; ends with the trainer's pipe."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        for number in numbers:
            writer.send((make(number), None))
    except BrokenPipeError:
        return
    except Exception as error:
        writer.send((None, error))
