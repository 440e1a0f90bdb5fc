"""Files that are truncated, have a flipped bit or trailing bytes; and files that are not checkpoints."""

from functools import partial
from pathlib import Path

import convert
from tests.convert.hostile.base import AUTOENCODER, Cases
from tests.convert.samples import checkpoint, trained


def cases() -> Cases:
    yield from _damaged()
    yield from _strangers()


def _damaged() -> Cases:
    def cut(folder: Path, bait: Path, suffix: str, share: float) -> Path:
        path = folder / f"x{suffix}"
        convert.save(trained(AUTOENCODER), path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    def prefixed(folder: Path, bait: Path, suffix: str) -> Path:
        path = folder / f"x{suffix}"
        convert.save(checkpoint(AUTOENCODER), path)
        path.write_bytes(b"\0" * 64 + path.read_bytes())
        return path

    def appended(folder: Path, bait: Path, suffix: str) -> Path:
        path = folder / f"x{suffix}"
        convert.save(checkpoint(AUTOENCODER), path)
        path.write_bytes(path.read_bytes() + b"\x81\xa1a")
        return path

    def flipped(folder: Path, bait: Path, name: str, file: str) -> Path:
        convert.save(checkpoint(AUTOENCODER), folder / name, format="flax")
        target = max((folder / name).glob(file) if file else [folder / name], key=lambda path: path.stat().st_size)
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
        return folder / name

    yield ".npz with a flipped bit", partial(flipped, name="x.npz", file="")
    yield "Orbax with a flipped bit", partial(flipped, name="x.orbax", file="d/*")
    for suffix in (".pth", ".safetensors", ".npz", ".msgpack"):
        for share in (0.0, 0.001, 0.02, 0.3, 0.7, 0.99):
            yield f"{suffix} cut to {share:.1%}", partial(cut, suffix=suffix, share=share)
        yield f"{suffix} with zeros before it", partial(prefixed, suffix=suffix)
    for suffix in (".safetensors", ".msgpack"):
        yield f"{suffix} with more behind it", partial(appended, suffix=suffix)


def _strangers() -> Cases:
    def raw(folder: Path, bait: Path, data: bytes) -> Path:
        (folder / "x.pth").write_bytes(data)
        return folder / "x.pth"

    for what, data in {
        "nothing": b"",
        "a word": b"hello",
        "JSON": b'{"model": []}',
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "gzip": b"\x1f\x8b" + bytes(99),
        "a program": b"\x7fELF" + bytes(99),
        "a script": b"#!/bin/sh\ntouch bait\n",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "a web page": b"<!DOCTYPE html><html>404</html>",
        "an empty zip": b"PK\x05\x06" + bytes(18),
        "a broken zip": b"PK\x03\x04" + bytes(99),
    }.items():
        yield f"a file that is {what}", partial(raw, data=data)
    yield "a path that leads nowhere", lambda f, b: f / "absent.pth"
