"""safetensors: a JSON header, then the arrays, little-endian and without gaps.

The library's parser checks the header; arrays are read and written by their position in the file,
so that one at a time is in memory.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from convert.arrays import DTYPES, Entries, raw_bytes, span
from convert.containers import header
from convert.content import Content
from convert.errors import ConvertError

CODES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32"}


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of a file; ConvertError when it is damaged."""
    entries, metadata = headers(path)
    return header.content_of(entries, metadata.get(header.KEY), path)


def headers(path: Path) -> tuple[Entries, dict[str, str]]:
    """The entries of a file and its metadata."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ConvertError(f"{path}: damaged safetensors file: {error}") from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found = json.loads(file.read(length), object_pairs_hook=lambda pairs: _unique(pairs, path))
    metadata = found.pop("__metadata__", {})
    start = 8 + length
    return {name: _entry(path, start, name, about) for name, about in found.items()}, metadata


def write(path: Path, content: Content) -> None:
    """Write the parameters, one array at a time."""
    write_arrays(path, content.params, {"format": "pt", header.KEY: json.dumps(header.fields(content))})


def write_arrays(path: Path, entries: Entries, metadata: dict[str, str]) -> dict[str, Any]:
    """Write entries and metadata, one array at a time; returns the file's size and checksum."""
    codes = {dtype: code for code, dtype in CODES.items()}
    index: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.nbytes
        index[name] = {"dtype": codes[entry.dtype.name], "shape": entry.shape, "data_offsets": [start, end]}
    text = json.dumps(index).encode()
    text += b" " * (-len(text) % 8)  # arrays start aligned
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def put(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)

        put(struct.pack("<Q", len(text)) + text)
        for entry in entries.values():
            put(raw_bytes(entry).data)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _entry(path: Path, start: int, name: str, about: dict[str, Any]) -> Any:
    code = about["dtype"]
    if code not in CODES:
        raise ConvertError(f"{path}: {name} is {code}; expected one of {', '.join(CODES)}")
    dtype = DTYPES.get(CODES[code]) or np.dtype(CODES[code])
    return span(path, start + about["data_offsets"][0], tuple(about["shape"]), dtype)


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConvertError(f"{path}: {twice[0]!r} is listed twice in its header")
    return dict(pairs)
