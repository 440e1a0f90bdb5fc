"""The golden files of the published PyTorch code, in canonical names and layouts.

A reader of their two layouts and of nothing else; users convert checkpoints with `convert`.
The sparse kernels run with the first spatial axis fastest: position = row + size * column.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange

import spec

FOLDER = Path(__file__).parent / "golden"
SIZES = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


@dataclass(frozen=True)
class Golden:
    """What the published code computed: arrays and inputs, and its outputs under the names that backends use."""

    model: spec.Model
    arrays: dict[str, np.ndarray]
    images: np.ndarray
    mask: np.ndarray | None
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def fcmae(images: int) -> Golden:
    """The masked autoencoder on 1 or 3 images; the latter shows the released batch-wide GRN.

    The run on 3 images was given one mask for all of them, and the published loss divides by the
    removed patches of that one mask: its loss and gradients are 3 times the mean, undone here.
    """
    scope = "image" if images == 1 else "batch"
    model = spec.fcmae(**SIZES, image_size=96, decoder_depth=1, decoder_dim=16, grn_scope=scope)
    found = np.load(FOLDER / f"fcmae_n{images}.npz")
    mask = np.broadcast_to(found["mask"].reshape(-1, 3, 3), (images, 3, 3))
    outputs = {
        "encoded": rearrange(found["encoded"], "n c h w -> n h w c"),
        "prediction": rearrange(found["pred"], "n c h w -> n h w c"),
        "loss": found["loss"] * len(found["mask"]) / images,
    }
    grads = {name.removeprefix("grad/"): found[name] for name in found if name.startswith("grad/")}
    grads = {name: grad * len(found["mask"]) / images for name, grad in grads.items()}
    return Golden(
        model,
        canonical(model, _state("official_fcmae.pth")),
        rearrange(found["imgs"], "n c h w -> n h w c"),
        mask,
        outputs,
        canonical(model, grads),
    )


def classifier() -> Golden:
    """The dense classifier of 11 classes on two images of 64 x 96 pixels."""
    model = spec.classifier(**SIZES, num_classes=11)
    found = np.load(FOLDER / "classifier.npz")
    outputs = {"features": found["features"], "logits": found["logits"]}
    images = rearrange(found["imgs"], "n c h w -> n h w c")
    return Golden(model, canonical(model, _state("official_classifier.pth")), images, None, outputs, {})


def canonical(model: spec.Model, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays in the published names, sparse or dense, to the spec's names and shapes; total in both directions."""
    renamed = {_name(name): (name, array) for name, array in found.items()}
    table = spec.parameters(model)
    assert renamed.keys() == table.keys(), sorted(renamed.keys() ^ table.keys())
    return {path: _layout(*renamed[path], param) for path, param in table.items()}


def _name(published: str) -> str:
    name = published.replace(".ln.", ".").replace(".linear.", ".")
    return name.removesuffix("kernel") + "weight" if name.endswith(".kernel") else name


def _layout(published: str, array: np.ndarray, param: spec.Param) -> np.ndarray:
    if published.endswith(".kernel"):
        depthwise = param.axes[0] == "ch"
        pattern = "(kw kh) c -> c 1 kh kw" if depthwise else "(kw kh) i o -> o i kh kw"
        return np.ascontiguousarray(rearrange(array, pattern, kh=param.shape[2]))
    return array.reshape(param.shape)  # GRN, mask token, sparse biases and 1x1 convs: axes of size 1 come and go


def _state(name: str) -> dict[str, np.ndarray]:
    import torch

    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(FOLDER / name, weights_only=True, map_location="cpu")
    return {path: value.numpy() for path, value in state["model"].items()}
