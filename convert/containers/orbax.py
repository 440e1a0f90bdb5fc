"""An Orbax folder: a tree of arrays, read one leaf at a time; Orbax can only write a whole tree."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from convert import trees
from convert.arrays import DTYPES, Entries, Entry
from convert.containers import header
from convert.content import Content
from convert.errors import ConvertError, reading

STORE = "manifest.ocdbt"
ITEM = "default"
"""The subfolder in which a CheckpointManager keeps the tree of a step."""


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of the folder under dotted names; ConvertError when it is damaged."""
    path = (path / ITEM if (path / ITEM).is_dir() else path).resolve()
    if (path / STORE).is_file():  # find damage here: Orbax opens all arrays at once and would print tracebacks
        tensorstore.KvStore.open({"driver": "ocdbt", "base": path.as_uri()}).result().list().result()
    metadata = ocp.PyTreeCheckpointer().metadata(path).item_metadata
    if metadata is None:
        raise ConvertError(f"{path}: Orbax finds no tree in it")
    leaves, _ = jax.tree_util.tree_flatten_with_path(metadata.tree)
    entries: Entries = {}
    for keys, leaf in leaves:
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in keys)
        if not hasattr(leaf, "shape"):
            raise ConvertError(f"{path}: {name} is not an array")
        dtype = DTYPES.get(str(leaf.dtype)) or np.dtype(leaf.dtype)
        entries[name] = Entry(tuple(leaf.shape), dtype, partial(_values, path, name))
    return header.content_of(entries, (metadata.custom_metadata or {}).get(header.KEY), path)


def write(path: Path, content: Content) -> None:
    """Write the parameters as the tree of their dotted names."""
    tree = trees.nested({name: np.ascontiguousarray(entry.read()) for name, entry in content.params.items()})
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), args=ocp.args.PyTreeSave(tree, custom_metadata=header.wrapped(content)))


def _values(path: Path, name: str) -> np.ndarray:
    """The array of one leaf; the rest of the tree is not read."""
    item = trees.nested({name: 0})
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
    with reading(path, "orbax"):
        found: Any = ocp.PyTreeCheckpointer().restore(path, args=args)
    for branch in name.split("."):
        found = found[branch]
    return np.asarray(found)
