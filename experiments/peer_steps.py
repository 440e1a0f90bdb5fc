"""The whole FCMAE step of other codes, from a checkout of each: what `experiments.peer_timings` runs in a process.

A code is imported from its checkout as it is, and builds its model by its own defaults but for the sizes. Package
files that import more than the model needs are not run, and packages that the model does not use are mocked.
"""

import argparse
import contextlib
import importlib
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

import spec
from benchmarks import outside, worker
from spec.console import one_line

Step = tuple[nn.Module, Callable[[Tensor], Tensor]]
"""A peer's model, and images (N, 3, H, W) -> the loss. It draws its masks itself."""

FAILED = "failed: "


@dataclass(frozen=True)
class Peer:
    """marker: a file that of all peers only this one has. build: its checkout, our model of the same sizes -> Step."""

    marker: str
    build: Callable[[Path, spec.FCMAE], Step]


def main() -> int:
    """Read the job from the first line of stdin and serve it; returns 1, after one line, if the peer does not run."""
    job = json.loads(sys.stdin.readline())
    try:
        run = _prepare(job)
        run()
    except Exception as error:  # of whatever kind: it is the peer's code
        print(f"{FAILED}{type(error).__name__}: {one_line(str(error))}", flush=True)
        return 1
    worker.serve(job, run, worker.torch_memory(job["device"]))
    return 0


def _prepare(job: dict[str, Any]) -> worker.Run:
    model, batch = worker.inputs(job)
    outside.timm()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
        net, loss = PEERS[job["engine"]].build(Path(job["checkout"]), model)
    images = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2).contiguous()
    return worker.passes(job, net, loss, (images,))


def _facebookresearch(checkout: Path, model: spec.FCMAE) -> Step:
    _load_minkowski()
    net = _from(checkout, "models.fcmae").FCMAE(**_sizes(model), img_size=model.image_size[0], norm_pix_loss=True)
    return net, lambda images: net(images)[0]


def _mmearth(checkout: Path, model: spec.FCMAE) -> Step:
    """With the stem of ConvNeXt V2 and one modality, the images, without its crop; its default stem has more to do."""
    _load_minkowski()
    _mock("kornia", "kornia.augmentation")
    _package("mmearth", checkout)
    bands = {"sentinel2": [*"RGB"]}
    args = argparse.Namespace(modalities=bands, out_modalities=bands, use_orig_stem=True, loss_aggr="unweighted")
    options = {"patch_size": model.encoder.patch_size, "img_size": model.image_size[0], "norm_pix_loss": True}
    net = importlib.import_module("mmearth.models.fcmae").FCMAE(**_sizes(model), **options, args=args)
    net.random_crop.apply_transform = lambda images, *_: images
    return net, lambda images: net({"sentinel2": images.clone()})[0]  # it masks its input in place


def _tao(checkout: Path, model: spec.FCMAE) -> Step:
    _mock("omegaconf", "pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.utilities.rank_zero")
    root = checkout / "nvidia_tao_pytorch"
    for folder in ("", "cv", "cv/backbone_v2"):
        package = _package(".".join((root.name, *Path(folder).parts)), root / folder)
    package.BACKBONE_REGISTRY = MagicMock()
    net = _from(checkout, "nvidia_tao_pytorch.ssl.mae.model.fcmae").FCMAE(
        **_sizes(model), img_size=model.image_size[0], norm_pix_loss=True
    )
    return net, lambda images: net(images)[0]


def _bsp36(checkout: Path, model: spec.FCMAE) -> Step:
    sizes = _sizes(model) | {"stem_stride": 4, "decoder_depth": 1, "patch_size": model.encoder.patch_size}
    net = _from(checkout, "modules.fcmae").FCMAE(3, **sizes, dec_dim=model.decoder_dim, norm_pix_loss=True)
    return net, lambda images: net(images)[0]


def _spark(checkout: Path, model: spec.FCMAE) -> Step:
    """With ConvNeXt V1, its only one, and its decoder."""
    _mock("pytz")
    _package("models", checkout / "pretrain" / "models")
    spark, size = _from(checkout / "pretrain", "spark"), model.image_size[0]
    convnext = importlib.import_module("models.convnext").ConvNeXt(**_sizes(model), num_classes=0)
    encoder = spark.encoder.SparseEncoder(convnext, size)
    decoder = spark.LightDecoder(model.encoder.patch_size, sbn=False)
    net = spark.SparK(encoder, decoder, mask_ratio=_removed(model), densify_norm="ln")
    return net, net


def _viscy(checkout: Path, model: spec.FCMAE) -> Step:
    """Of 2D images, with its U-Net as decoder; its loss, a mean over removed pixels, is part of another package."""
    source = checkout / "packages" / "viscy-models" / "src" / "viscy_models"
    for name in ("viscy_models", "viscy_models.components", "viscy_models.unet"):
        _package(name, source.parent.joinpath(*name.split(".")))
    sizes = {"encoder_blocks": model.encoder.depths, "dims": model.encoder.dims}
    kind = importlib.import_module("viscy_models.unet.fcmae").FullyConvolutionalMAE
    net = kind(3, 3, **sizes, stem_kernel_size=(1, 4, 4), in_stack_depth=1)
    ratio = _removed(model, above=0.5)

    def loss(images: Tensor) -> Tensor:
        found, mask = net(images[:, :, None], ratio)
        return ((found[:, :, 0] - images).square() * mask).sum() / mask.sum()

    return net, loss


PEERS = {
    "facebookresearch/ConvNeXt-V2": Peer("submitit_pretrain.py", _facebookresearch),
    "VisCy": Peer("packages/viscy-models/src/viscy_models/unet/fcmae.py", _viscy),
    "SparK": Peer("pretrain/spark.py", _spark),
    "BSP36/fcmae": Peer("modules/fcmae.py", _bsp36),
    "NVIDIA TAO": Peer("nvidia_tao_pytorch/ssl/mae/model/fcmae.py", _tao),
    "MMEarth": Peer("MODALITIES.py", _mmearth),
}


def _sizes(model: spec.FCMAE) -> dict[str, list[int]]:
    return {"depths": [*model.encoder.depths], "dims": [*model.encoder.dims]}


def _removed(model: spec.FCMAE, above: float = 0) -> float:
    """The mask ratio at which a peer that rounds in its own way removes as many patches as we do."""
    patches = model.grid[0] * model.grid[1]
    return (patches - spec.visible_patches(model) + above) / patches


def _from(folder: Path, module: str) -> Any:
    """A module of a checkout."""
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def _package(name: str, folder: Path) -> Any:
    """A package whose `__init__.py` is not run."""
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [str(folder)]
    return package


def _mock(*names: str) -> None:
    sys.modules.update({name: MagicMock() for name in names})


def _load_minkowski() -> None:
    """MinkowskiEngine, with its depthwise convolution under the name that a fork of it has given it."""
    from backends.torch.space.minkowski import ME, DepthwiseConv

    ME.MinkowskiDepthwiseConvolution = DepthwiseConv


if __name__ == "__main__":
    sys.exit(main())
