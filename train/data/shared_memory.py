"""Send values between processes with arrays in shared memory, without copies on the reader's side.

Unpickling a float batch from a pipe takes longer than making it with four workers. Arrays are
written to an anonymous memory file whose descriptor is sent. It has no name that a killed run
could leave behind, and is freed with the last array that uses it.
"""

import mmap
import os
import pickle
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

ALIGNED = 64  # bytes: the alignment that JAX needs to use memory without a copy


def send(writer: Connection, value: Any) -> None:
    """Send a picklable value to `receive` at the other end of a two-way pipe."""
    if not hasattr(os, "memfd_create"):  # not Linux: arrays are pickled too
        writer.send((pickle.dumps(value, protocol=5), []))
        return
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    writer.send((pickled, [len(view) for view in views]))
    if any(len(view) for view in views):
        _send_views(writer, views)


def receive(reader: Connection) -> Any:
    """Receive a value. Raises EOFError or OSError when the other end is closed."""
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
    """(start, size) of each array in the memory file, in bytes."""
    places, end = [], 0
    for size in sizes:
        places.append((end, size))
        end += -(-size // ALIGNED) * ALIGNED
    return places
