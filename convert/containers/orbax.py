"""An Orbax folder: a tree of arrays, read one leaf at a time; Orbax can only write a whole tree."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from convert.arrays import DTYPES, Entries, Entry, nested
from convert.containers import header
from convert.content import Content
from convert.errors import ConvertError, reading
from convert.files import SPARE, reserve

STORE = "manifest.ocdbt"
TREE = "_METADATA"  # the file in the folder of a tree

ITEMS = ("default", "state", "params", "model")
"""Names under which programs keep the tree of a step, beside other items."""


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of the folder under dotted names: of a tree, a step, or the newest step of a CheckpointManager."""
    path, notes = _tree(path.resolve())
    if (path / STORE).is_file():  # find damage here: Orbax opens all arrays at once and would print tracebacks
        tensorstore.KvStore.open({"driver": "ocdbt", "base": path.as_uri()}).result().list().result()
    metadata = ocp.PyTreeCheckpointer().metadata(path).item_metadata
    if metadata is None:
        raise ConvertError(f"{path}: Orbax finds no tree in it")
    leaves, structure = jax.tree_util.tree_flatten_with_path(metadata.tree)
    entries: Entries = {}
    for place, (keys, leaf) in enumerate(leaves):
        name = ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in keys)
        if not hasattr(leaf, "shape"):
            raise ConvertError(f"{path}: {name} is not an array")
        dtype = DTYPES.get(str(leaf.dtype)) or np.dtype(leaf.dtype)
        entries[name] = Entry(tuple(leaf.shape or ()), dtype, partial(_values, path, structure, place, keys))
    content = header.content_of(entries, (metadata.custom_metadata or {}).get(header.KEY), path)
    content.notes += notes
    return content


def write(path: Path, content: Content) -> None:
    """Write the parameters as the tree of their dotted names."""
    reserve(path.parent, content.nbytes + SPARE)  # Orbax's threads print tracebacks, and outlive the error
    tree = nested({name: np.asarray(entry.read(), order="C") for name, entry in content.params.items()})
    args = ocp.args.PyTreeSave(tree, custom_metadata={header.KEY: header.fields(content)})
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), args=args)


def _tree(path: Path) -> tuple[Path, list[str]]:
    """The folder of the tree to read, and a note for each choice among several."""
    if (path / TREE).is_file():
        return path, []
    children = sorted(path.iterdir())
    items = {child.name: child for child in children if (child / TREE).is_file()}
    if items:
        return _item(path, items)
    steps = {int(found[1]): child for child in children if (found := re.fullmatch(r"(?:.*_)?(\d+)", child.name))}
    if not steps:
        raise ConvertError(f"{path}: Orbax finds no tree in it")
    tree, notes = _tree(steps[max(steps)])
    chosen = f"read: {steps[max(steps)].name}, the newest of {len(steps)} steps"
    return tree, [chosen, *notes] if len(steps) > 1 else notes


def _item(path: Path, items: dict[str, Path]) -> tuple[Path, list[str]]:
    """The only tree of a step, or the first under a usual name."""
    name = next((usual for usual in ITEMS if usual in items), min(items))
    if len(items) > 1 and name not in ITEMS:
        raise ConvertError(f"{path}: holds several trees, {', '.join(items)}; give the path of one of them")
    others = ", ".join(items.keys() - {name})
    return items[name], [f"read: {name}; left out: {others}"] if others else []


def _template(structure: jax.tree_util.PyTreeDef, place: int, keys: Sequence[Any]) -> tuple[Any, bool]:
    """What to restore to read one leaf, and whether that is a part of the tree: faster, but lists have to be whole."""
    if all(isinstance(key, jax.tree_util.DictKey) for key in keys):
        item: Any = 0
        for key in reversed(keys):
            item = {key.key: item}
        return item, True
    leaves: list[Any] = [ocp.PLACEHOLDER] * structure.num_leaves
    leaves[place] = 0
    return structure.unflatten(leaves), False


def _values(path: Path, structure: jax.tree_util.PyTreeDef, place: int, keys: Sequence[Any]) -> np.ndarray:
    """The array of one leaf; the rest of the tree is not read."""
    item, part = _template(structure, place, keys)
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=part)
    with reading(path, "orbax"):
        found = ocp.PyTreeCheckpointer().restore(path, args=args)
    return np.asarray(jax.tree.leaves(found)[0 if part else place])
