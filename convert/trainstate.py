"""Training states of Flax programs: a tree of parameters, opt_state, step and, where one is kept, an EMA.

    params      name -> array
    opt_state   mu and nu, each name -> array, and count: optax.ScaleByAdamState(**opt_state)
    ema         name -> array
    step        number of updates

`pack` writes this tree. `unpack` reads it, and what flax's TrainState and nnx.Optimizer make of optax's
nested states: mu, nu and count may lie at any depth, and moments of several parameter groups in several places.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from convert.arrays import Arrays, Entries, entries_of, entry_of
from convert.content import AdamWState, Content
from convert.errors import ConvertError, listed
from convert.naming import unwrapped

MOMENT = re.compile(r"(?:(?P<place>.*?)\.)?(?P<moment>mu|nu)\.(?P<name>.+)")
OPTIMIZER = re.compile(r"(.*\.)?(opt_state|optimizer)(\..*)?")
EMA = re.compile(r"(ema|ema_params|params_ema)\.(?P<name>.+)")
STEP = re.compile(r"(.*\.)?step")


def pack(content: Content) -> Content:
    """The content with moments, count, step and EMA among its arrays, if it has any of them."""
    state = content.optimizer
    if state is None and not content.ema:
        return content
    tree = _under("params", content.params) | _under("ema", content.ema)
    meta = content.meta
    if state is not None:
        count = entry_of(np.array(state.t, np.int32))
        tree |= {"opt_state.count": count}
        tree |= _under("opt_state.mu", entries_of(state.mu)) | _under("opt_state.nu", entries_of(state.nu))
        tree |= {"step": count}
        meta = {**meta, "optimizer": state.hyper}
    return replace(content, params=tree, ema={}, optimizer=None, meta=meta)


def unpack(content: Content, weights_only: bool = False) -> Content:
    """The content with parameters, moments and EMA apart; ConvertError where the moments have no single count."""
    entries = {name.removesuffix(".value"): entry for name, entry in content.params.items()}  # nnx.Variable's
    if len(entries) < len(content.params):
        raise ConvertError("some arrays have the same name with and without .value; keep one of each")
    moments = {name: found for name in entries if (found := MOMENT.fullmatch(name))}
    rest = [name for name in entries if name not in moments]
    ema = {found["name"]: entries[name] for name in rest if (found := EMA.fullmatch(name)) and not weights_only}
    others = [name for name in rest if OPTIMIZER.fullmatch(name) or STEP.fullmatch(name)]
    params = {name: entries[name] for name in rest if name not in others and not EMA.fullmatch(name)}
    meta, notes = dict(content.meta), [*content.notes]
    hyper = meta.pop("optimizer", None)
    optimizer = None
    if moments and not weights_only:
        optimizer = _moments(entries, moments.values(), others)
        optimizer.hyper = hyper if isinstance(hyper, dict) else {}
    unused = [name for name in others if entries[name].shape]
    if unused:
        notes.append(f"left out: {listed(unused, 3)}: not AdamW's")
    return replace(content, params=params, ema=ema, optimizer=optimizer, meta=meta, notes=notes)


def _moments(entries: Entries, found: Iterable[re.Match[str]], others: Iterable[str]) -> AdamWState:
    """The moments by parameter, of all places where there are some, and their common count."""
    mu: Entries = {}
    nu: Entries = {}
    places: dict[str, None] = {}
    for match in found:
        (mu if match["moment"] == "mu" else nu)[match["name"]] = entries[match[0]]
        places[match["place"] or ""] = None
    counts = [name for place in places if (name := f"{place}.count".lstrip(".")) in entries]
    counts = counts or [name for name in others if STEP.fullmatch(name)]
    values = sorted({int(np.asarray(entries[name].read()).reshape(())) for name in counts})
    if len(values) != 1:
        raise ConvertError(f"its moments have made {values or 'an unknown number of'} updates; expected one number")
    return AdamWState(Arrays(unwrapped(mu)), Arrays(unwrapped(nu)), values[0])


def _under(prefix: str, entries: Entries) -> Entries:
    return {f"{prefix}.{name}": entry for name, entry in entries.items()}
