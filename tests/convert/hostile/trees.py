"""msgpack trees that are damaged, or hold what no tree of arrays holds."""

from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import msgpack

from tests.convert.hostile.base import Cases, named


def cases() -> Cases:
    def raw(folder: Path, data: bytes) -> Path:
        (folder / "x.msgpack").write_bytes(data)
        return folder / "x.msgpack"

    def array(shape: Any, dtype: Any, data: bytes) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))

    def tree(folder: Path, leaf: Any) -> Path:
        nested = flax.traverse_util.unflatten_dict(named("flax"), sep=".")
        data = msgpack.unpackb(flax.serialization.msgpack_serialize(nested))
        data["head"]["bias"] = leaf
        return raw(folder, msgpack.packb(data))

    deep = b"\x81\xa1a" * 5000 + b"\xc0"
    yield "a tree 5000 levels deep", lambda f, b: raw(f, deep)
    yield "a map of 4 billion keys", lambda f, b: raw(f, b"\xdf\xff\xff\xff\xff")
    yield "a key that is a number", lambda f, b: raw(f, msgpack.packb({1: 2}))
    yield "an empty tree", lambda f, b: raw(f, b"\x81\xa1a\x80")
    yield "a key twice", lambda f, b: raw(f, b"\x82" + 2 * (b"\xa1a" + msgpack.packb(array((1,), "float32", bytes(4)))))
    for what, leaf in {
        "a number": 3,
        "nothing": None,
        "text": "weights",
        "a list": [1.0, 2.0, 3.0],
        "an extension of another kind": msgpack.ExtType(99, b"123"),
        "an array that lies about its shape": array((10**6, 10**6), "float32", bytes(12)),
        "an array of negative shape": array((-3,), "float32", bytes(12)),
        "an array of objects": array((3,), "object", bytes(24)),
        "an array of no dtype": array((3,), "float33", bytes(12)),
        "an array of text": array((3,), "U1", bytes(12)),
        "an array without values": msgpack.ExtType(1, msgpack.packb(((3,), "float32"))),
        "an array in pieces": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": 1}},
        "an array that is garbage": msgpack.ExtType(1, b"\xc1\xc1\xc1"),
    }.items():
        yield f"msgpack leaf: {what}", lambda f, b, leaf=leaf: tree(f, leaf)
