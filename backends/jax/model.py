"""The two models, forward and loss."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

import spec
from backends.jax.build import make
from backends.jax.sites import enter
from backends.jax.steps import Call, Chain, at_least_float32

Record = Callable[[str, Any], None]


class Classifier(Chain):
    """ConvNeXt V2 with a linear head."""

    def __init__(self, model: spec.Classifier, dtype: str = "float32") -> None:
        super().__init__(model.steps, make)
        self.model, self.dtype = model, dtype

    def __call__(
        self,
        images: Array,
        mask: Array | None = None,
        *,
        engine: str = "masked",
        visible: int = 0,
        record: Record | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        platform: str | None = None,
    ) -> dict[str, Array]:
        """features (N, C3) and logits (N, classes) of images (N, H, W, C).

        mask (N, G_h, G_w), 1 = removed, keeps `visible` patches of every image. keep_paths
        (N, blocks) holds drop-path decisions in training. record(path, sites) sees every step.
        remat computes blocks again in the backward pass instead of keeping what they hold.
        platform is what the pass is compiled for, by default the one that jax prefers.
        """
        call = Call(record, keep_paths, remat, platform)
        sites = enter(engine, images.astype(self.dtype), mask, self.model.encoder.patch_size, visible)
        features = self.run(self.names[:-1], sites, call)
        logits = self.run(self.names[-1:], features, call)
        return {"features": features.x, "logits": logits.x}


class FCMAE(Chain):
    """The masked autoencoder."""

    def __init__(self, model: spec.FCMAE, dtype: str = "float32") -> None:
        super().__init__(model.steps, make)
        self.model, self.dtype = model, dtype
        self.encoder_names = tuple(name for name in self.names if name.startswith("encoder."))

    def __call__(
        self,
        images: Array,
        mask: Array | None = None,
        *,
        engine: str = "visible",
        visible: int | None = None,
        record: Record | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        platform: str | None = None,
    ) -> dict[str, Array]:
        """encoded (N, G_h, G_w, C3), prediction (N, G_h, G_w, patch^2 * chans), loss () in float32 at least.

        images (N, H, W, C); mask (N, G_h, G_w), 1 = removed, keeps `visible` patches of
        every image (by default as many as the spec's mask ratio does). remat and platform as in `Classifier`.
        """
        call = Call(record, keep_paths, remat, platform)
        sites = self.encode(images, mask, call, engine=engine, visible=visible)
        encoded = sites.grid()
        prediction = self.run(self.names[len(self.encoder_names) :], sites, call).x
        loss = masked_loss(prediction, images, mask, self.model)
        return {"encoded": encoded, "prediction": prediction, "loss": loss}

    def encode(
        self,
        images: Array,
        mask: Array | None,
        call: Call | None = None,
        *,
        engine: str = "visible",
        visible: int | None = None,
    ) -> Any:
        """The sites after the encoder; `.grid()` shows them as (N, G_h, G_w, C3)."""
        kept = spec.visible_patches(self.model) if visible is None else visible
        sites = enter(engine, images.astype(self.dtype), mask, self.model.encoder.patch_size, kept)
        return self.run(self.encoder_names, sites, call or Call())


def masked_loss(prediction: Array, images: Array, mask: Array | None, model: spec.FCMAE) -> Array:
    """Mean squared error over each removed patch, then over the removed patches of the batch; NaN if there are none."""
    target = targets(at_least_float32(images), model)
    error = jnp.square(at_least_float32(prediction) - target).mean(-1)
    if mask is None:
        return jnp.full((), jnp.nan, error.dtype)
    removed = mask != 0
    return jnp.where(removed, error, 0).sum() / removed.sum()


def targets(images: Array, model: spec.FCMAE) -> Array:
    """What is to be predicted: patches, each normalised by its own mean and unbiased variance if norm_target."""
    patches = patchify(images, model.encoder.patch_size)
    if not model.norm_target:
        return patches
    mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + spec.EPS)


def patchify(images: Array, patch: int) -> Array:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C) in the order row, column, channel."""
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
    return grid.reshape(*grid.shape[:3], -1)
