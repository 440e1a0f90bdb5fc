"""Zips that lie: .pth and .npz files."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import convert
from tests.convert.hostile.base import AUTOENCODER, Cases, named
from tests.convert.samples import checkpoint


def cases() -> Cases:
    def torch_file(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
        model = {name: torch.from_numpy(array) for name, array in named("official-sparse").items()}
        change(model)
        torch.save({"model": model}, folder / "x.pth")
        return folder / "x.pth"

    def rezipped(folder: Path, method: int, more: dict[str, bytes]) -> Path:
        convert.save(checkpoint(AUTOENCODER), folder / "y.pth")
        with zipfile.ZipFile(folder / "y.pth") as old, zipfile.ZipFile(folder / "x.pth", "w", method) as new:
            for member in old.namelist():
                new.writestr(member, more.get(member, old.read(member)))
        return folder / "x.pth"

    def member(folder: Path, name: str, data: bytes) -> Path:
        np.savez(folder / "x.npz", **{n: a for n, a in named("official-dense").items() if f"{n}.npy" != name})
        with zipfile.ZipFile(folder / "x.npz", "a") as archive:
            archive.writestr(name, data)
        return folder / "x.npz"

    def npy(shape: tuple[int, ...], descr: str = "<f4", data: bytes = bytes(12)) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        return file.getvalue() + data

    vast = torch.zeros(1).expand(10**6, 10**6)
    stepping = torch.zeros(8).as_strided((8, 10), (0, 0))
    yield "a tensor of 4 TB in 4 bytes", lambda f, b: torch_file(f, lambda m: m.update({"proj.weight": vast}))
    yield "a tensor that repeats itself", lambda f, b: torch_file(f, lambda m: m.update({"proj.weight": stepping}))
    yield "a sparse tensor", lambda f, b: torch_file(f, lambda m: m.update({"proj.bias": torch.zeros(7).to_sparse()}))
    yield "a complex tensor", lambda f, b: torch_file(f, lambda m: m.update({"proj.bias": torch.zeros(7) * 1j}))
    yield "a tensor in a list", lambda f, b: torch_file(f, lambda m: m.update({"proj.bias": [torch.zeros(7)]}))  # type: ignore
    yield "a number for a tensor", lambda f, b: torch_file(f, lambda m: m.update({"proj.bias": 7.0}))  # type: ignore
    yield "a compressed .pth", lambda f, b: rezipped(f, zipfile.ZIP_DEFLATED, {})
    yield "a .pth with half a pickle", lambda f, b: rezipped(f, zipfile.ZIP_STORED, {"y/data.pkl": b"\x80\x02}q"})
    yield "a .pth without a pickle's end", lambda f, b: rezipped(f, zipfile.ZIP_STORED, {"y/data.pkl": b""})
    yield "a .pth with a short storage", lambda f, b: rezipped(f, zipfile.ZIP_STORED, {"y/data/0": b"1234"})
    yield "an npz array of 4 TB in 12 bytes", lambda f, b: member(f, "head.bias.npy", npy((10**6, 10**6)))
    yield "an npz array too short", lambda f, b: member(f, "head.bias.npy", npy((3,), data=bytes(8)))
    yield "an npz array of text", lambda f, b: member(f, "head.bias.npy", npy((3,), "<U1"))
    yield "an npz array of records", lambda f, b: member(f, "head.bias.npy", npy((3,), "|V4"))
    yield (
        "an npz header that is a program",
        lambda f, b: member(f, "head.bias.npy", npy((3,)).replace(b"(3,)", b"f(3)")),
    )
    yield "an npz member that is no array", lambda f, b: member(f, "head.bias.npy", b"hello")
    yield "an npz array twice", lambda f, b: member(f, "./head.bias.npy", npy((3,)))
