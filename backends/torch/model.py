"""The three models, forward and loss.

The encoder of each has `features`: the maps of its stages, for dense tasks.
"""

from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor

import spec
from backends import api
from backends.torch.kernels import use_triton
from backends.torch.norm import at_least_float32
from backends.torch.space import engines
from backends.torch.space.patches import patchify, removed_patches, take
from backends.torch.space.protocol import Space
from backends.torch.steps import Call, Chain, Record
from spec.model import KERNEL


class Model(Chain):
    """Base of all models: compute dtype, images to (x, space), and feature maps."""

    def __init__(self, model: spec.Model, dtype: torch.dtype | None = None) -> None:
        """dtype: what to compute in; None: the type of the parameters, which `.to(dtype)` changes."""
        super().__init__(spec.modules(model))
        self.model, self.explicit_dtype = model, dtype
        self.stage_names = spec.stage_names(model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        stem: torch.dtype = self._at(self.names[0]).weight.dtype
        return self.explicit_dtype or stem

    def feature_info(self, stages: Iterable[int] | None = None) -> tuple[spec.FeatureInfo, ...]:
        """Stage, channels and stride of each map that `features` returns."""
        return self.model.encoder.feature_info(stages)

    def features(
        self,
        images: Tensor,
        stages: Iterable[int] | None = None,
        mask: Tensor | None = None,
        *,
        layout: str = "NHWC",
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> tuple[Tensor, ...]:
        """The feature maps of stages, in the order asked for: (N, H / stride, W / stride, C), 0 at removed sites.

        images (N, H, W, C). stages: numbers from 0; None: all. layout: "NHWC", or "NCHW" for maps
        (N, C, H / stride, W / stride). The other arguments are those of the call, see `Classifier`.
        `feature_info` has the channels and strides. Stages after the last one asked for are not computed.
        """
        chosen = [info.stage for info in self.feature_info(stages)]
        axes = api.map_axes(layout)
        call = Call(None, keep_paths, remat)
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        maps = self._maps(chosen, x, space, call)
        return tuple(maps[stage].permute(axes) for stage in chosen)

    def _maps(self, stages: Collection[int], x: Tensor, space: Space, call: Call) -> dict[int, Tensor]:
        """Stage -> its feature map (N, H, W, C), of x from before the stem."""
        maps = {}
        for stage in range(max(stages) + 1):
            x, space = self.run(self.stage_names[stage], x, space, call)
            if stage in stages:
                norm = getattr(self, f"norm{stage}", None)  # of a Backbone with out_norm
                maps[stage] = space.grid(x if norm is None else norm(x))
        return maps

    def _enter(
        self, images: Tensor, mask: Tensor | None, call: Call, engine: str | None, visible: int | None, kernels: str
    ) -> tuple[Tensor, Space]:
        """Images as x in the space of an engine; see `Classifier.forward`. BackendError for shapes that do not fit."""
        api.check_keep_paths(self.model, images, call.keep_paths, training=self.training)
        chosen = api.choose(self.model, engines.ENGINES, engine, images, mask, _values(mask, visible), visible)
        return engines.enter(
            chosen["engine"],
            images.to(self.dtype),
            mask,
            patch=self.model.encoder.patch_size,
            kept=chosen["visible"],
            kernel_size=KERNEL,
            kernels=use_triton(kernels, images.device.type),
        )


class Classifier(Model):
    """ConvNeXt V2 with a linear head, or without for 0 classes."""

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> dict[str, Tensor]:
        """features (N, C3) and, with a head, logits (N, classes) of images (N, H, W, C).

        mask (N, G_h, G_w), 1 = removed. engine None: "visible" where the mask keeps the same number
        of patches of every image, "masked" otherwise. visible: that number; needed by engine "visible"
        where the values of the mask are unknown (while compiling, under vmap). kernels: "auto", "plain"
        or "triton". record(path, x, space) sees every step. keep_paths (N, blocks) holds drop-path
        decisions, 1 = keep: nothing is drawn here, and a model with drop_path in training mode raises
        BackendError without them. remat recomputes the activations inside a block in the backward pass.
        """
        call = Call(record, keep_paths, remat)
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        past = self.names.index("norm") + 1
        features, space = self.run(self.names[:past], x, space, call)
        if past == len(self.names):
            return {"features": features}
        logits, _ = self.run(self.names[past:], features, space, call)
        return {"features": features, "logits": logits}


class FCMAE(Model):
    """The masked autoencoder."""

    model: spec.FCMAE

    def __init__(self, model: spec.FCMAE, dtype: torch.dtype | None = None) -> None:
        super().__init__(model, dtype)
        self.encoder_names = sum(self.stage_names, ())
        self.masked_loss, self.removed_loss = masked_loss, removed_loss  # which may be compiled

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
        weights: Tensor | None = None,
        loss_only: bool = False,
    ) -> dict[str, Tensor]:
        """encoded (N, G_h, G_w, C3), prediction (N, G_h, G_w, patch^2 * chans), loss () in float32 at least.

        Arguments as in `Classifier.forward`. Without a mask every patch is encoded and the loss is NaN.
        weights (N,): factors on the images' errors in the loss.
        loss_only: return the loss alone; if `visible` is given too, only removed patches are predicted.
        """
        call = Call(record, keep_paths, remat)
        x, space = self.encode(images, mask, call, engine=engine, visible=visible, kernels=kernels)
        decoded, dense = self.run(self.names[len(self.encoder_names) : -1], x, space, call)
        if loss_only and mask is not None and visible is not None:
            removed = removed_patches(mask, visible)
            prediction, _ = self.run(self.names[-1:], take(decoded, removed), dense, call)
            return {"loss": self.removed_loss(prediction, images, removed, self.model, weights)}
        prediction, _ = self.run(self.names[-1:], decoded, dense, call)
        loss = self.masked_loss(prediction, images, mask, self.model, weights)
        return {"loss": loss} if loss_only else {"encoded": space.grid(x), "prediction": prediction, "loss": loss}

    def encode(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        call: Call | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
    ) -> tuple[Tensor, Space]:
        """x and its space after the encoder; `space.grid(x)` is (N, G_h, G_w, C3)."""
        call = call or Call()
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        return self.run(self.encoder_names, x, space, call)


class Backbone(Model):
    """The encoder alone, for dense tasks."""

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> dict[str, Tensor]:
        """stage0, stage1, ...: the feature map of each stage (N, H / stride, W / stride, C), 0 at removed sites.

        Arguments as in `Classifier.forward`. `features` chooses stages and layout.
        """
        call = Call(record, keep_paths, remat)
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        maps = self._maps(range(len(self.stage_names)), x, space, call)
        return {f"stage{stage}": value for stage, value in maps.items()}


def masked_loss(
    prediction: Tensor, images: Tensor, mask: Tensor | None, model: spec.FCMAE, weights: Tensor | None = None
) -> Tensor:
    """`spec.MaskedError`: mean squared error per removed patch, then over the removed patches of the batch."""
    error = _errors(prediction, patchify(images, model.encoder.patch_size), model, weights)
    if mask is None:
        return error.new_full((), torch.nan)
    removed = mask != 0
    return torch.where(removed, error, 0).sum() / removed.sum()


def removed_loss(
    prediction: Tensor, images: Tensor, removed: Tensor, model: spec.FCMAE, weights: Tensor | None = None
) -> Tensor:
    """`masked_loss` of predictions (N, R, patch^2 * chans) at the removed patches (N, R) only."""
    patches = take(patchify(images, model.encoder.patch_size), removed)
    return _errors(prediction, patches, model, weights).mean()


def _errors(prediction: Tensor, patches: Tensor, model: spec.FCMAE, weights: Tensor | None) -> Tensor:
    """The mean squared error of each patch, times its image's weight."""
    error = (at_least_float32(prediction) - targets(at_least_float32(patches), model)).square().mean(-1)
    return error if weights is None else error * weights.reshape(-1, *[1] * (error.ndim - 1)).to(error.dtype)


def targets(patches: Tensor, model: spec.FCMAE) -> Tensor:
    """The values to predict of patches (..., patch^2 * chans), normalised as `spec.MaskedError` says if norm_target."""
    if not model.norm_target:
        return patches
    centred = patches - patches.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (patches.shape[-1] - 1)  # var_mean is slower on CPU
    return centred / (variance + spec.EPS).sqrt()


def _values(mask: Tensor | None, visible: int | None) -> np.ndarray | None:
    """The mask on the host; None while it has no values, or if reading them would synchronise a GPU needlessly."""
    if mask is None or torch.compiler.is_compiling() or mask.is_meta or (mask.is_cuda and visible is not None):
        return None
    try:
        return mask.detach().cpu().numpy()
    except RuntimeError:  # inside vmap, or of a fake tensor
        return None
