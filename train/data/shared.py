"""Values between processes, their arrays through shared memory: the reader copies nothing.

A batch of floats that goes through a pipe as pickled bytes takes the reader longer than making it
takes four workers. Here the arrays lie in an anonymous file in memory whose descriptor is sent:
it has no name that a killed run could leave behind, and it is freed with the last array on it.
"""

import mmap
import os
import pickle
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

ALIGNED = 64  # bytes: what JAX asks of memory that it is to use as it stands


def send(writer: Connection, value: Any) -> None:
    """Send anything that can be pickled, to a `receive` at the other end of a two-way pipe."""
    if not hasattr(os, "memfd_create"):  # not Linux: arrays travel among the pickled bytes
        writer.send((pickle.dumps(value, protocol=5), []))
        return
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    writer.send((pickled, [len(view) for view in views]))
    if any(len(view) for view in views):
        _send_views(writer, views)


def receive(reader: Connection) -> Any:
    """What was sent; EOFError or OSError when the other end is gone."""
    pickled, sizes = reader.recv()
    if not any(sizes):
        return pickle.loads(pickled, buffers=[bytearray() for _ in sizes])
    descriptor = recv_handle(reader)
    try:
        shared = memoryview(mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
    finally:
        os.close(descriptor)
    return pickle.loads(pickled, buffers=[shared[start : start + size] for start, size in _places(sizes)])


def _send_views(writer: Connection, views: list[memoryview]) -> None:
    descriptor = os.memfd_create("batch")
    try:
        for view, (start, _) in zip(views, _places([len(view) for view in views]), strict=True):
            _write(descriptor, view, start)
        send_handle(writer, descriptor, None)
    finally:
        os.close(descriptor)


def _write(descriptor: int, view: memoryview, start: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], start + done)


def _places(sizes: list[int]) -> list[tuple[int, int]]:
    """(start, size) of each array."""
    places, end = [], 0
    for size in sizes:
        places.append((end, size))
        end += -(-size // ALIGNED) * ALIGNED
    return places
