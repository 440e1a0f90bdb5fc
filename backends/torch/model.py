"""The two models, forward and loss."""

import numpy as np
import torch
from torch import Tensor

import spec
from backends import api
from backends.torch.kernels import use_triton
from backends.torch.norm import at_least_float32
from backends.torch.space import engines
from backends.torch.space.protocol import Space
from backends.torch.steps import Call, Chain, Record
from spec.model import KERNEL


class Model(Chain):
    """What both models share: the type that they compute in, and how images enter."""

    def __init__(self, model: spec.Model, dtype: torch.dtype | None = None) -> None:
        """dtype: what to compute in; None: the type of the parameters, which `.to(dtype)` changes."""
        super().__init__(model.steps)
        self.model, self.explicit_dtype = model, dtype

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        stem: torch.dtype = self._at(self.names[0]).weight.dtype
        return self.explicit_dtype or stem

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
    """ConvNeXt V2 with a linear head."""

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
        """features (N, C3) and logits (N, classes) of images (N, H, W, C).

        mask (N, G_h, G_w), 1 = removed. engine None: "visible" where the mask keeps the same number
        of patches of every image, "masked" otherwise. visible: that number; needed by engine "visible"
        where the values of the mask are unknown (while compiling, under vmap). kernels: "auto", "plain"
        or "triton". record(path, x, space) sees every step. keep_paths (N, blocks) holds drop-path
        decisions, 1 = keep: nothing is drawn here, and a model with drop_path in training mode raises
        BackendError without them. remat recomputes the activations inside a block in the backward pass.
        """
        call = Call(record, keep_paths, remat)
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        features, space = self.run(self.names[:-1], x, space, call)
        logits, _ = self.run(self.names[-1:], features, space, call)
        return {"features": features, "logits": logits}


class FCMAE(Model):
    """The masked autoencoder."""

    model: spec.FCMAE

    def __init__(self, model: spec.FCMAE, dtype: torch.dtype | None = None) -> None:
        super().__init__(model, dtype)
        self.encoder_names = tuple(name for name in self.names if name.startswith("encoder."))
        self.masked_loss = masked_loss  # which may be compiled

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
        """encoded (N, G_h, G_w, C3), prediction (N, G_h, G_w, patch^2 * chans), loss () in float32 at least.

        Arguments as in `Classifier.forward`. Without a mask every patch is encoded and the loss is NaN.
        """
        call = Call(record, keep_paths, remat)
        x, space = self.encode(images, mask, call, engine=engine, visible=visible, kernels=kernels)
        prediction, _ = self.run(self.names[len(self.encoder_names) :], x, space, call)
        loss = self.masked_loss(prediction, images, mask, self.model)
        return {"encoded": space.grid(x), "prediction": prediction, "loss": loss}

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


def masked_loss(prediction: Tensor, images: Tensor, mask: Tensor | None, model: spec.FCMAE) -> Tensor:
    """Mean squared error over each removed patch, then over the removed patches of the batch; NaN if there are none."""
    target = targets(at_least_float32(images), model)
    error = (at_least_float32(prediction) - target).square().mean(-1)
    if mask is None:
        return error.new_full((), torch.nan)
    removed = mask != 0
    return torch.where(removed, error, 0).sum() / removed.sum()


def targets(images: Tensor, model: spec.FCMAE) -> Tensor:
    """The patches to predict, each normalised by its own mean and unbiased variance if norm_target."""
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


def _values(mask: Tensor | None, visible: int | None) -> np.ndarray | None:
    """The mask on the host; None where it has no values yet, or where reading them would make a GPU wait needlessly."""
    if mask is None or torch.compiler.is_compiling() or mask.is_meta or (mask.is_cuda and visible is not None):
        return None
    try:
        return mask.detach().cpu().numpy()
    except RuntimeError:  # inside vmap, or of a fake tensor
        return None
