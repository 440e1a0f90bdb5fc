"""The table of peers in published-code.md: `python -m experiments.peers` prints it, in a minute.

Each peer's encoder is written here once more, as masked dense convolution in plain torch, with what
the peer does differently. A figure is |found - true| / |true|, L2 over the encoder's features: atto,
3 images of noise at 224 px, 19 of 49 patches visible, random weights of unit scale, float64.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from backends.torch import build, forward, set_arrays
from parity_tests.strategies import Case

Norm = Callable[[Tensor, Tensor], Tensor]


def over_image(x: Tensor, keep: Tensor) -> Tensor:
    return (x * keep).square().sum((1, 2), keepdim=True).sqrt()


def over_batch(x: Tensor, keep: Tensor) -> Tensor:
    return (x * keep).square().sum((0, 1, 2), keepdim=True).sqrt()


def over_grid(x: Tensor, keep: Tensor) -> Tensor:
    return x.square().sum((1, 2), keepdim=True).sqrt()


@dataclass(frozen=True)
class Peer:
    """What a code computes, and the fields of the spec that reproduce it; None where there are none.

    down_eps: of the norms before downsampling, if it is not eps.
    clears_norm: whether a block's LayerNorm leaves 0 at removed sites.
    """

    does: str
    fields: dict[str, Any] | None
    norm: Norm = over_image
    eps: float = 1e-6
    down_eps: float | None = None
    clears_norm: bool = False
    is_v1: bool = False


PEERS = {
    "facebookresearch/ConvNeXt-V2, sparse": Peer(
        "GRN over the batch", {"grn_scope": "batch"}, norm=over_batch, clears_norm=True
    ),
    "BSP36/fcmae": Peer("GRN over the whole grid, removed sites included", {"grn_scope": "grid"}, norm=over_grid),
    "mmpretrain, SparseConvNeXt with GRN": Peer(
        "the same, behind a LayerNorm that leaves 0 at removed sites", None, norm=over_grid, clears_norm=True
    ),
    "VisCy": Peer(
        "LayerNorm with epsilon 1e-5, 1e-6 before downsampling; no depthwise bias",
        {"norm_eps": 1e-5, "dwconv_bias": False},
        eps=1e-5,
        down_eps=1e-6,
    ),
    "SparK, ConvNeXt V1": Peer("what the definition says", {"block": "v1"}, clears_norm=True, is_v1=True),
}


def main() -> int:
    """Print the table; returns the exit status."""
    print("| peer | what it computes | distance from the definition | fields that reproduce it | distance then |")
    print("|---|---|---|---|---|")
    for name, peer in PEERS.items():
        model = spec.fcmae("convnext_atto" if peer.is_v1 else "convnextv2_atto")
        case = Case(model, model.grid, spec.visible_patches(model), count=3)
        apart, reproduced = distances(peer, case)
        fields = ", ".join(f"`{field}={value!r}`" for field, value in (peer.fields or {}).items()) or "none"
        then = "" if reproduced is None else f"{reproduced:.1e}"
        print(f"| {name} | {peer.does} | {apart:.1e} | {fields} | {then} |", flush=True)
    return 0


def distances(peer: Peer, case: Case) -> tuple[float, float | None]:
    """How far our encoder lies from the peer's: as defined, with the peer's parameters, and with the peer's fields."""
    fields = peer.fields or {}
    case = _with(case, dwconv_bias=fields.get("dwconv_bias", True))
    found = features(peer, case).numpy()
    apart = _distance(encoded(case), found)
    return apart, None if peer.fields is None else _distance(encoded(_with(case, **fields)), found)


def _with(case: Case, **fields: Any) -> Case:
    """The case with other fields of the encoder."""
    return replace(case, model=replace(case.model, encoder=replace(case.model.encoder, **fields)))


def encoded(case: Case) -> np.ndarray:
    """Our encoder's features (N, G_h, G_w, C3)."""
    module = build(case.model, dtype="float64")
    set_arrays(module, case.arrays)
    return forward(module, case.images, case.mask)["encoded"]


@torch.no_grad()
def features(peer: Peer, case: Case) -> Tensor:
    """The peer's features (N, G_h, G_w, C3), 0 at removed sites."""
    p = {name.removeprefix("encoder."): torch.from_numpy(array) for name, array in case.arrays.items()}
    x, side = torch.from_numpy(case.images), case.model.encoder.patch_size
    keep = torch.from_numpy(case.mask == 0).repeat_interleave(side, 1).repeat_interleave(side, 2)[..., None]
    x = x * keep
    for stage, depth in enumerate(case.model.encoder.depths):
        at = f"downsample_layers.{stage}"
        conv, norm = (f"{at}.0", f"{at}.1") if stage == 0 else (f"{at}.1", f"{at}.0")
        stride = p[f"{conv}.weight"].shape[-1]
        x = x if stage == 0 else _layer_norm(x, p, norm, peer.down_eps or peer.eps) * keep
        x = _conv(x, p, conv, stride=stride)
        keep = keep[:, ::stride, ::stride]
        x = (_layer_norm(x, p, norm, peer.eps) if stage == 0 else x) * keep
        for block in range(depth):
            x = (x + _branch(x, keep, p, f"stages.{stage}.{block}", peer)) * keep
    return x


def _branch(x: Tensor, keep: Tensor, p: Mapping[str, Tensor], at: str, peer: Peer) -> Tensor:
    x = _conv(x, p, f"{at}.dwconv", padding=3, groups=x.shape[-1])
    x = _layer_norm(x, p, f"{at}.norm", peer.eps)
    x = F.gelu(_linear(x * keep if peer.clears_norm else x, p, f"{at}.pwconv1"))
    if not peer.is_v1:
        norm = peer.norm(x, keep)
        x = p[f"{at}.grn.gamma"] * x * norm / (norm.mean(-1, keepdim=True) + 1e-6) + p[f"{at}.grn.beta"] + x
    x = _linear(x, p, f"{at}.pwconv2")
    return x * p[f"{at}.gamma"] if peer.is_v1 else x


def _conv(x: Tensor, p: Mapping[str, Tensor], at: str, **options: int) -> Tensor:
    return F.conv2d(x.permute(0, 3, 1, 2), p[f"{at}.weight"], p.get(f"{at}.bias"), **options).permute(0, 2, 3, 1)


def _linear(x: Tensor, p: Mapping[str, Tensor], at: str) -> Tensor:
    return F.linear(x, p[f"{at}.weight"], p[f"{at}.bias"])


def _layer_norm(x: Tensor, p: Mapping[str, Tensor], at: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{at}.weight"], p[f"{at}.bias"], eps)


def _distance(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


if __name__ == "__main__":
    sys.exit(main())
