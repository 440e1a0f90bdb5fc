"""npz: a zip of npy arrays. Headers are read first; pickled objects are refused."""

import json
import math
import os
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from convert.arrays import Entry, raw_bytes
from convert.containers import header
from convert.content import Content
from convert.errors import ConvertError, reading


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of a file; ConvertError when it is damaged, or holds pickled objects."""
    with zipfile.ZipFile(path) as archive:
        _check_end(path, archive.comment)
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConvertError(f"{path}: {twice[0]!r} is twice in the archive")
        entries = {name: _entry(path, archive, member) for name, member in zip(names, members, strict=True)}
        return header.content_of(entries, header.own(archive.comment.decode("utf-8", "replace")), path)


def write(path: Path, content: Content) -> None:
    """Write the parameters, one array at a time, uncompressed as numpy.savez does."""
    about = json.dumps({header.KEY: header.fields(content)}).encode()
    if len(about) > zipfile.ZIP_MAX_COMMENT:
        content.leave_classes("npz holds 64 kB beside its arrays")
        about = json.dumps({header.KEY: header.fields(replace(content, meta={}))}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = about
        for name, entry in content.params.items():
            if entry.dtype.kind == "V":
                raise ConvertError(f"npz cannot hold {entry.dtype.name} ({name}); --dtype float32, or use .safetensors")
            write_array(archive, name, entry.dtype.newbyteorder("<"), entry.shape, [raw_bytes(entry)])


def write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]
) -> None:
    """Write a member part by part. Its date is that of no clock, so the bytes of the same array are the same."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        for part in parts:
            file.write(np.ascontiguousarray(part).data.cast("B"))


def _check_end(path: Path, comment: bytes) -> None:
    """ConvertError where the comment of the zip, which holds our header, is cut; zipfile does not mind."""
    with path.open("rb") as file:
        file.seek(-len(comment) - 2, os.SEEK_END)
        size = int.from_bytes(file.read(2), "little")
    if size != len(comment):
        raise ConvertError(f"{path}: is cut short, or something follows the archive")


def _entry(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
        offset = file.tell()
    name = member.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise ConvertError(f"{path}: {name} holds pickled Python objects, which are never read")
    if offset + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ConvertError(f"{path}: {name} claims {dtype}{shape}, but has {member.file_size - offset} bytes")

    def values() -> np.ndarray:
        with reading(path, "npz"), zipfile.ZipFile(path) as again, again.open(member) as file:
            raw = np.frombuffer(file.read(), np.uint8)[offset:]
        found = raw.view(dtype).astype(dtype.newbyteorder("="), copy=False)
        return found.reshape(shape[::-1]).T if fortran else found.reshape(shape)

    return Entry(shape, dtype.newbyteorder("="), values)
