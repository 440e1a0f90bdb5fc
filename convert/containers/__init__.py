"""The containers: kinds of files and folders that hold arrays, one module each, imported when first needed.

A container has `read(path) -> Content` and `write(path, content)`. The kind of a file is recognised by
its first bytes, never by its name.
"""

import importlib
import importlib.util
import zipfile
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from convert.content import Content
from convert.errors import ConvertError, reading


class Container(Protocol):
    """The functions of each module of this package."""

    def read(self, path: Path, weights_only: bool = False) -> Content:
        """The file's arrays, under the file's own names; weights_only leaves optimizer and EMA unread."""

    def write(self, path: Path, content: Content) -> None:
        """Write the parts of the content that this container can hold."""


class Kind(NamedTuple):
    """A container's suffixes, its module, and the package that it needs."""

    suffixes: tuple[str, ...]
    module: str
    package: str


KINDS: dict[str, Kind] = {
    "pth": Kind((".pth", ".pt", ".bin", ".ckpt"), "convert.containers.pth", "torch"),
    "safetensors": Kind((".safetensors",), "convert.containers.safetensors", "safetensors"),
    "npz": Kind((".npz",), "convert.containers.npz", "numpy"),
    "msgpack": Kind((".msgpack",), "convert.containers.msgpack", "msgpack"),
    "hf": Kind((), "convert.containers.huggingface", "safetensors"),
    "timm": Kind((), "convert.containers.timm", "safetensors"),
    "run": Kind((), "convert.containers.run", "safetensors"),
    "orbax": Kind((".orbax",), "convert.containers.orbax", "orbax.checkpoint"),
}
FOREIGN = {
    b"\x89HDF": "an HDF5 file, as Keras writes; save its arrays with numpy.savez",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"GGUF": "a GGUF file",
}
"""First bytes of files that are no checkpoints of any container -> what they are."""

FOLDERS = {"hf": "hf", "dinov3-hf": "hf", "timm": "timm", "ours": "run"}
"""Format -> the container to write as a folder; Orbax for all others."""


def read(path: Path, weights_only: bool = False, key: str | None = None) -> tuple[str, Content]:
    """The kind of a file or folder, and its content; ConvertError when it is not a checkpoint, or damaged.

    key: of a .pth, where its parameters are.
    """
    kind = kind_of(path)
    if key is not None and kind != "pth":
        raise ConvertError(f"{path}: --key is for the keys of a .pth; this is of the kind {kind}")
    container = module(kind)
    with reading(path, kind):
        return kind, container.read(path, weights_only, **({} if key is None else {"key": key}))


def module(kind: str) -> Container:
    """The module of a container; ConvertError says how to install what it needs."""
    package = KINDS[kind].package
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        raise ConvertError(f"{kind}: {package} is not installed; pip install {package.replace('.', '-')}")
    return cast(Container, importlib.import_module(KINDS[kind].module))


def kind_of(path: Path) -> str:
    """The container of a file or folder, by what is in it."""
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise ConvertError(f"{path}: no such file or folder")
    with path.open("rb") as file:
        head = file.read(16)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise ConvertError(f"{path}: {what}, which is not read")
    if head[:2] == b"PK":
        with reading(path, "zip"), zipfile.ZipFile(path) as archive:
            first = next(iter(archive.namelist()), "")
        return "npz" if first.endswith(".npy") else "pth"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pth"  # a bare pickle, as torch wrote before 1.6
    if head[8:9] == b"{":
        return "safetensors"
    if head and is_map(head[0]):
        return "msgpack"
    raise ConvertError(f"{path}: not a checkpoint; it {'is empty' if not head else f'begins with {head[:8]!r}'}")


def is_map(byte: int) -> bool:
    """Whether msgpack begins a map by this byte."""
    return byte >> 4 == 0x8 or byte in (0xDE, 0xDF)


def kind_for(path: Path, format: str) -> str:
    """The container to write to a path, by its suffix; without a suffix it is a folder."""
    for kind, (suffixes, *_) in KINDS.items():
        if path.suffix in suffixes:
            return kind
    if path.suffix in ("", ".hf", ".ours"):
        return FOLDERS.get(format, "orbax")
    known = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    raise ConvertError(f"{path}: the suffix {path.suffix!r} is unknown; use one of {known}, or none for a folder")


def _kind_of_folder(path: Path) -> str:
    if (path / "manifest.json").is_file() or (path / "checkpoints").is_dir():
        return "run"
    if (path / "config.json").is_file():
        return "timm" if b'"architecture"' in (path / "config.json").read_bytes() else "hf"
    marks = ("_METADATA", "_CHECKPOINT_METADATA")
    if any(next(path.glob(f"{depth}{mark}"), None) for depth in ("", "*/", "*/*/") for mark in marks):
        return "orbax"  # a tree, a step, or a CheckpointManager's steps
    raise ConvertError(f"{path}: not a checkpoint; a folder needs a config.json, a manifest.json, or Orbax's _METADATA")
