"""Rename and permute groups of arrays between a format and the spec: complete, strict, checked before reading."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

import spec
from convert.arrays import DTYPES, Entries, entry_checked
from convert.errors import ConvertError, listed
from convert.rules import Format, Place, bare, fits, to_canonical, to_format
from spec import Model

WRAPPERS = ("module.", "_orig_mod.", "params.", "model.", "state.", "0.")
"""Prefixes that wrappers put before every name: torch's data parallelism and compiler, train states, tuples."""


def unwrapped(entries: Entries) -> Entries:
    """The entries without a wrapper's prefix, if all names have it."""
    for wrapper in WRAPPERS:
        if entries and all(name.startswith(wrapper) for name in entries):
            return unwrapped({name.removeprefix(wrapper): entry for name, entry in entries.items()})
    return entries


def paths(format: Format, names: Iterable[str]) -> dict[str, str]:
    """Name -> the spec's bare path; ConvertError lists unknown names, and two names of the same array."""
    found = {name: format.path(name) for name in names}
    unknown = [name for name, path in found.items() if path is None]
    if unknown:
        raise ConvertError(f"not in the {format.name} format: {listed(unknown)}; {_remedy(format, unknown)}")
    known = {name: path for name, path in found.items() if path is not None}
    twice = [path for path, times in Counter(known.values()).items() if times > 1]
    if twice:
        both = listed(name for name, path in known.items() if path == twice[0])
        raise ConvertError(f"{both} are the same array, {twice[0]}; keep one")
    return known


def without_surplus(format: Format, entries: Entries) -> tuple[Entries, list[str]]:
    """The entries that a model has, each once, and a line for each kind of those that were left out."""
    by_path = {format.path(name): name for name in entries}
    surplus = format.surplus(entries)
    for name, entry in entries.items():
        first = by_path.get(format.original(name) or "")
        if first and np.array_equal(entry.read().squeeze(), entries[first].read().squeeze()):
            surplus[name] = "second names of arrays that the file has once more"
    lines = [
        f"left out: {listed(name for name in surplus if surplus[name] == what)}: {what}"
        for what in dict.fromkeys(surplus.values())
    ]
    return {name: entry for name, entry in entries.items() if name not in surplus}, lines


def cuts(name: str) -> list[tuple[str, str]]:
    """A name split at each of its dots.

    >>> cuts("a.b.c")
    [('a.', 'b.c'), ('a.b.', 'c')]
    """
    return [(name[: dot + 1], name[dot + 1 :]) for dot, letter in enumerate(name) if letter == "."]


def _remedy(format: Format, unknown: Iterable[str]) -> str:
    """What to do about names that a format lacks: their prefix, if most have one under which it has them."""
    prefixes = Counter(prefix for name in unknown for prefix, rest in cuts(name) if format.path(rest))
    prefix, times = next(iter(prefixes.most_common(1)), ("", 0))
    if times > 2:
        return f"{times} of them are under {prefix}: convert it with --prefix {prefix}"
    return "remove them, or convert it with --from FORMAT if they are of another"


def canonical(format: Format, model: Model, entries: Entries) -> Entries:
    """The entries under the spec's names, in its order and layouts."""
    by_path = {path: name for name, path in paths(format, entries).items()}
    table = spec.parameters(model)
    extra = by_path.keys() - map(bare, table)
    if extra:
        raise ConvertError(f"no such array in this model: {listed(sorted(by_path[path] for path in extra))}")
    head = "head.weight" in by_path
    found: Entries = {}
    misfits = []
    for path, param in table.items():
        name, place = by_path.get(bare(path)), format.place(path, param, model, head)
        if name is None or place is None:
            continue
        entry = entries[name]
        if entry.dtype not in DTYPES.values():
            raise ConvertError(f"{name}: {entry.dtype} is not a dtype of weights; expected one of {', '.join(DTYPES)}")
        if not fits(entry.shape, place):
            misfits.append(f"{name}: the file has {entry.shape}, the spec says {place.shape} for {path}")
        found[path] = to_canonical(entry_checked(name, entry), place, param)
    if misfits:
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        raise ConvertError(misfits[0] + more)
    check_complete(model, found)
    return found


def foreign(format: Format, model: Model, entries: Entries) -> Entries:
    """The entries under the format's names, in its order and layouts, from those under the spec's."""
    places = placed(format, model, entries)
    table, head = spec.parameters(model), "head.weight" in entries
    first = {place.name: to_format(entries[path], place, table[path]) for path, place in places.items()}
    return first | {
        place.name: to_format(entries[path], place, table[path])
        for path in places
        for place in format.second_places(path, table[path], model, head)
    }


def placed(format: Format, model: Model, names: Iterable[str]) -> dict[str, Place]:
    """Path -> place, in the format's order; ConvertError lists the parts that the format cannot hold."""
    table, every = spec.parameters(model), list(names)
    head = "head.weight" in every
    found = {path: format.place(path, table[path], model, head) for path in every}
    homeless = [bare(path) for path, place in found.items() if place is None]
    if any(path.startswith("stages.") for path in homeless):
        family = model.encoder.block.upper()
        raise ConvertError(
            f"the {format.name} format cannot hold {listed(homeless, 1)}, of ConvNeXt {family}; choose another"
        )
    if homeless:
        parts = dict.fromkeys(path.split(".")[0] for path in homeless)
        raise ConvertError(f"the {format.name} format cannot hold {', '.join(parts)}; add --encoder-only")
    return format.in_order({path: place for path, place in found.items() if place is not None})


def check_complete(model: Model, entries: Entries) -> None:
    """ConvertError unless the entries are exactly the arrays of the model."""
    table = spec.parameters(model)
    absent = [path for path in table if path not in entries]
    if absent:
        raise ConvertError(f"missing: {listed(absent)}; the file is incomplete, or of another model")
    for path, entry in entries.items():
        if path not in table:
            raise ConvertError(f"no such array in this model: {path}")
        if entry.shape != table[path].shape:
            raise ConvertError(f"{path}: {entry.shape} given, the spec says {table[path].shape}")
