"""Flax's msgpack: nested maps of arrays, each an extension that holds (shape, dtype, bytes).

The tree is walked once for the headers; an array's bytes are read later, by their position in the file,
so that one array at a time is in memory.
"""

import math
import os
import struct
from collections.abc import Iterator
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgpack
import numpy as np

from convert.arrays import DTYPES, Entries, Entry, entry_of, nested, raw_bytes, span
from convert.containers import is_map
from convert.content import Content
from convert.errors import ConvertError

NDARRAY, SCALAR = 1, 3  # flax's extension codes of an array and of a numpy scalar
CHUNKED = ".__msgpack_chunked_array__"
LARGEST = 2**30  # bytes; flax splits arrays above it, and none of ours is
DEPTH = 16  # levels, more than any known tree has


class Header(NamedTuple):
    """Shape, dtype and size of an array."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of a file under dotted names; ConvertError when it is damaged."""
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, max_buffer_size=0, ext_hook=_header)
        entries: Entries = {}
        for name, leaf in _leaves(unpacker, file, ""):
            if name in entries:
                raise ConvertError(f"{path}: {name!r} is twice in the tree")
            if leaf is not None:
                entries[name] = _entry(path, name, leaf, unpacker.tell())
        if unpacker.tell() != path.stat().st_size:
            raise ConvertError(f"{path}: {path.stat().st_size - unpacker.tell()} bytes follow the tree")
    return Content(_joined(path, entries))


def write(path: Path, content: Content) -> None:
    """Write the parameters as nested maps by their dotted names, one array at a time."""
    content.leave_classes("Flax's msgpack is a tree of arrays")
    if content.meta.get("optimizer"):
        content.notes.append("left out: lr, betas and the like: they are not part of a Flax state; set them in optax")
    with path.open("wb") as file:
        _write(file, nested(content.params))


def _leaves(unpacker: msgpack.Unpacker, file: BinaryIO, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, header) of each array; when one is yielded, the unpacker is just behind it."""
    if prefix.count(".") > DEPTH:
        raise ConvertError(f"{file.name}: {prefix[:80]}... is more than {DEPTH} levels deep; no known tree is")
    for _ in range(unpacker.read_map_header()):
        name = prefix + str(unpacker.unpack())
        if is_map(os.pread(file.fileno(), 1, unpacker.tell())[0]):
            yield from _leaves(unpacker, file, f"{name}.")
        else:
            yield name, unpacker.unpack()


def _joined(path: Path, entries: Entries) -> Entries:
    """The entries with the chunks of large arrays joined: flax splits an array above its limit into flat pieces."""
    joined = dict(entries)
    for name in [mark.removesuffix(CHUNKED) for mark in entries if mark.endswith(CHUNKED)]:
        parts = {key: joined.pop(key) for key in entries if key.startswith(f"{name}.")}
        shape = tuple(int(parts[key].read()) for key in _numbered(parts, f"{name}.shape."))
        chunks = [parts[key] for key in _numbered(parts, f"{name}.chunks.")]
        if sum(math.prod(chunk.shape) for chunk in chunks) != math.prod(shape) or not chunks:
            raise ConvertError(f"{path}: {name} claims {shape}, which its {len(chunks)} chunks do not fill")
        joined[name] = Entry(shape, chunks[0].dtype, partial(_concatenated, chunks, shape))
    return joined


def _numbered(parts: Entries, prefix: str) -> Iterator[str]:
    return takewhile(parts.__contains__, (f"{prefix}{i}" for i in count()))


def _concatenated(chunks: list[Entry], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([chunk.read().reshape(-1) for chunk in chunks]).reshape(shape)


def _entry(path: Path, name: str, header: Any, end: int) -> Entry:
    if isinstance(header, bool | int | float):  # a step, or the mark and shape of an array in chunks
        return entry_of(np.asarray(header))
    if not isinstance(header, Header):
        raise ConvertError(f"{path}: {name} is a {type(header).__name__}, not an array")
    dtype = DTYPES.get(header.dtype) or np.dtype(header.dtype)
    if math.prod(header.shape) * dtype.itemsize != header.nbytes:
        raise ConvertError(f"{path}: {name} claims {dtype}{header.shape}, but has {header.nbytes} bytes")
    return span(path, end - header.nbytes, header.shape, dtype)


def _header(code: int, data: bytes) -> Header | msgpack.ExtType:
    if code not in (NDARRAY, SCALAR):
        return msgpack.ExtType(code, b"")
    shape, dtype, values = msgpack.unpackb(data, max_bin_len=len(data))
    return Header(tuple(map(int, shape)), str(dtype), len(values))


def _write(file: BinaryIO, node: dict[str, Any] | Entry) -> None:
    packer = msgpack.Packer()
    if isinstance(node, Entry):
        if node.nbytes > LARGEST:
            raise ConvertError(f"an array of {node.nbytes} bytes is too large for Flax's msgpack; use .safetensors")
        start = b"\x93" + packer.pack(node.shape) + packer.pack(node.dtype.name) + struct.pack(">BI", 0xC6, node.nbytes)
        file.write(struct.pack(">BIb", 0xC9, len(start) + node.nbytes, NDARRAY) + start)
        file.write(raw_bytes(node).data)
        return
    file.write(packer.pack_map_header(len(node)))
    for name, child in node.items():
        file.write(packer.pack(name))
        _write(file, child)
