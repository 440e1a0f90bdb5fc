"""Checkpoints to test conversions with: every model that a spec allows, every optional part, every dtype."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

import convert
import spec
from convert.arrays import DTYPES
from parity_tests.strategies import sizes
from parity_tests.tolerances import assert_same

AUTOENCODER = ("ours", "flax", "official-dense", "official-sparse")
CLASSIFIER = ("ours", "flax", "official-dense", "timm", "hf", "mmpretrain")
ENCODER = (*CLASSIFIER, "official-sparse")
BACKBONE = ("ours", "flax", "official-dense", "hf")
KINDS = {
    "autoencoder": AUTOENCODER,
    "classifier": CLASSIFIER,
    "encoder": ENCODER,
    "features": CLASSIFIER,
    "backbone": BACKBONE,
}
"""Kind of checkpoint -> the formats that can hold it. Features: an encoder and its norm; backbone: a norm per stage."""

CONTAINERS = (".safetensors", ".npz", ".msgpack", ".pth")


def filled(model: spec.Model, dtype: str = "float32", seed: int = 0) -> dict[str, np.ndarray]:
    """Values of which no two are equal, for all parameters: a swap of any two would be seen."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=p.shape).astype(DTYPES[dtype]) for name, p in spec.parameters(model).items()}


def checkpoint(model: spec.Model, dtype: str = "float32", seed: int = 0, **rest: Any) -> convert.Checkpoint:
    return convert.Checkpoint(model, filled(model, dtype, seed), **rest)


def trained(model: spec.Model, seed: int = 0) -> convert.Checkpoint:
    """A checkpoint with moments and EMA."""
    mu, nu, ema = (filled(model, seed=seed + k) for k in (1, 2, 3))
    state = convert.AdamWState(mu, {name: np.abs(array) for name, array in nu.items()}, t=7)
    return checkpoint(model, seed=seed, optimizer=state, ema=ema, meta={"epoch": 3})


@st.composite
def checkpoints(
    draw: st.DrawFn, kind: str, formats: tuple[str, ...] = (), dtypes: tuple[str, ...] = tuple(DTYPES), **given: Any
) -> convert.Checkpoint:
    """Of one kind, that these formats can hold, with any sizes, in any dtype, and the given fields."""
    fields = draw(sizes(("v2",) if "official-sparse" in formats else ("v2", "v1"))) | given
    if kind == "autoencoder":
        depth = draw(st.integers(0, 2), label="decoder_depth")
        patch = fields["stem_stride"] * 2 ** (len(fields["dims"]) - 1)
        model: spec.Model = spec.fcmae(
            **fields, image_size=7 * patch, decoder_depth=depth, decoder_dim=9, norm_target=False
        )
    elif kind in ("encoder", "backbone"):
        model = spec.encoder(**fields, out_norm=kind == "backbone")
    else:
        classes = draw(st.integers(1, 5), label="num_classes") if kind == "classifier" else 0
        model = spec.classifier(**fields, num_classes=classes)
    return checkpoint(model, draw(st.sampled_from(dtypes), label="dtype"), draw(st.integers(0, 99), label="seed"))


def recognised(format: str, model: spec.Model) -> str:
    """The format found in the names: ours and the published one are the same for V1, but for the mask token."""
    same = format == "ours" and model.encoder.block == "v1" and not isinstance(model, spec.FCMAE)
    return "official-dense" if same else format


def assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    """The same names in the same order, the same bits."""
    assert list(found) == list(expected), what
    assert_same(dict(found), dict(expected), what)
