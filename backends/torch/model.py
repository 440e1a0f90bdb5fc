"""The two models, forward and loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import spec
from backends.torch.build import make
from backends.torch.sites import enter
from backends.torch.steps import Call, Chain, at_least_float32

Record = Callable[[str, Any], None]


class Classifier(Chain):
    """ConvNeXt V2 with a linear head."""

    def __init__(self, model: spec.Classifier, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model.steps, make)
        self.model, self.dtype = model, dtype

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        engine: str = "masked",
        visible: int = 0,
        record: Record | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> dict[str, Tensor]:
        """features (N, C3) and logits (N, classes) of images (N, H, W, C).

        mask (N, G_h, G_w), 1 = removed, keeps `visible` patches of every image. keep_paths
        (N, blocks) holds drop-path decisions in training. record(path, sites) sees every step.
        remat computes blocks again in the backward pass instead of keeping what they hold.
        """
        call = Call(record, keep_paths, remat)
        sites = enter(engine, images.to(self.dtype), mask, self.model.encoder.patch_size, visible)
        features = self.run(self.names[:-1], sites, call)
        logits = self.run(self.names[-1:], features, call)
        return {"features": features.x, "logits": logits.x}


class FCMAE(Chain):
    """The masked autoencoder."""

    def __init__(self, model: spec.FCMAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model.steps, make)
        self.model, self.dtype = model, dtype
        self.encoder_names = tuple(name for name in self.names if name.startswith("encoder."))

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        engine: str = "visible",
        visible: int | None = None,
        record: Record | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> dict[str, Tensor]:
        """encoded (N, G_h, G_w, C3), prediction (N, G_h, G_w, patch^2 * chans), loss () in float32 at least.

        images (N, H, W, C); mask (N, G_h, G_w), 1 = removed, keeps `visible` patches of
        every image (by default as many as the spec's mask ratio does). remat as in `Classifier`.
        """
        call = Call(record, keep_paths, remat)
        sites = self.encode(images, mask, call, engine=engine, visible=visible)
        encoded = sites.grid()
        prediction = self.run(self.names[len(self.encoder_names) :], sites, call).x
        loss = masked_loss(prediction, images, mask, self.model)
        return {"encoded": encoded, "prediction": prediction, "loss": loss}

    def encode(
        self,
        images: Tensor,
        mask: Tensor | None,
        call: Call | None = None,
        *,
        engine: str = "visible",
        visible: int | None = None,
    ) -> Any:
        """The sites after the encoder; `.grid()` shows them as (N, G_h, G_w, C3)."""
        kept = spec.visible_patches(self.model) if visible is None else visible
        sites = enter(engine, images.to(self.dtype), mask, self.model.encoder.patch_size, kept)
        return self.run(self.encoder_names, sites, call or Call())


def masked_loss(prediction: Tensor, images: Tensor, mask: Tensor | None, model: spec.FCMAE) -> Tensor:
    """Mean squared error over each removed patch, then over the removed patches of the batch; NaN if there are none."""
    target = targets(at_least_float32(images), model)
    error = (at_least_float32(prediction) - target).square().mean(-1)
    if mask is None:
        return error.new_full((), torch.nan)
    removed = mask != 0
    return torch.where(removed, error, 0).sum() / removed.sum()


def targets(images: Tensor, model: spec.FCMAE) -> Tensor:
    """What is to be predicted: patches, each normalised by its own mean and unbiased variance if norm_target."""
    patches = patchify(images, model.encoder.patch_size)
    if not model.norm_target:
        return patches
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + spec.EPS).sqrt()


def patchify(images: Tensor, patch: int) -> Tensor:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C) in the order row, column, channel."""
    n, height, width, channels = images.shape
    grid = images.view(n, height // patch, patch, width // patch, patch, channels)
    return grid.transpose(2, 3).flatten(3)
