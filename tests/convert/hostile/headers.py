"""safetensors files whose headers or metadata lie."""

import json
import struct
from pathlib import Path
from typing import Any

import safetensors.numpy

from tests.convert.hostile.base import Cases, named


def cases() -> Cases:
    def raw(folder: Path, header: bytes, data: bytes = bytes(24), length: int | None = None) -> Path:
        size = struct.pack("<Q", len(header) if length is None else length)
        (folder / "x.safetensors").write_bytes(size + header + data)
        return folder / "x.safetensors"

    def one(dtype: str = "F32", shape: str = "[2]", offsets: str = "[0,8]", name: str = '"norm.weight"') -> bytes:
        return f'{{{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}'.encode()

    def described(folder: Path, about: Any) -> Path:
        text = about if isinstance(about, str) else json.dumps(about)
        safetensors.numpy.save_file(named("timm"), folder / "x.safetensors", {"twinnext": text})
        return folder / "x.safetensors"

    twice = one()[:-1] + b"," + one()[1:]
    yield "a header of 1 EB", lambda f, b: raw(f, one(), length=2**60)
    yield "a header past the end", lambda f, b: raw(f, one(), length=10**4)
    yield "a header of length 0", lambda f, b: raw(f, one(), length=0)
    yield "a header that is no JSON", lambda f, b: raw(f, b"{" * 40)
    yield "a header that is a list", lambda f, b: raw(f, b'{"a":[]}')
    yield "a header without tensors", lambda f, b: raw(f, b"{}", b"")
    yield "a name twice", lambda f, b: raw(f, twice, bytes(8))
    yield "offsets past the end", lambda f, b: raw(f, one(offsets="[0,800]"))
    yield "offsets backwards", lambda f, b: raw(f, one(offsets="[8,0]"))
    yield "offsets with a gap", lambda f, b: raw(f, one(offsets="[16,24]"))
    yield "an offset below 0", lambda f, b: raw(f, one(offsets="[-8,0]"))
    yield "a shape that lies", lambda f, b: raw(f, one(shape="[3]"), bytes(8))
    yield "a shape that overflows", lambda f, b: raw(f, one(shape="[4294967296,4294967296,2]"), bytes(8))
    yield "an unknown dtype", lambda f, b: raw(f, one(dtype="F33"), bytes(8))
    yield "a dtype of 8 bits", lambda f, b: raw(f, one(dtype="F8_E4M3", offsets="[0,2]"), bytes(2))
    yield "bytes behind the tensors", lambda f, b: raw(f, one(), bytes(9))
    encoder = {
        "depths": [1, 2],
        "dims": [8, 10],
        "in_chans": 3,
        "stem_stride": 2,
        "grn_scope": "image",
        "drop_path": 0.0,
    }
    for what, about in {
        "no JSON": "{",
        "a list": [1],
        "a model without an encoder": {"model": {}},
        "a model of text": {"model": {"encoder": "large"}},
        "a model of the wrong width": {"model": {"encoder": {**encoder, "dims": [8, 12]}, "num_classes": 3}},
        "a model of a billion blocks": {"model": {"encoder": {**encoder, "depths": [10**9, 2]}, "num_classes": 3}},
        "a model of -1 blocks": {"model": {"encoder": {**encoder, "depths": [-1, 2]}, "num_classes": 3}},
        "a model with a strange field": {"model": {"encoder": {**encoder, "kernel": 9}, "num_classes": 3}},
        "a masked autoencoder": {"model": {"encoder": encoder, "image_size": 32, "mask_ratio": 0.6}},
        "an unknown format": {"format": "keras"},
        "another format": {"format": "hf"},
    }.items():
        yield f"metadata that say: {what}", lambda f, b, about=about: described(f, about)
