"""The three models, forward and loss.

The encoder of each has `features`: the maps of its stages, for dense tasks.
"""

from collections.abc import Collection, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import spec
from backends import api
from backends.jax.kernels import choose_kernels
from backends.jax.norm import at_least_float32
from backends.jax.space import engines
from backends.jax.space.patches import patchify, removed_patches, take
from backends.jax.space.protocol import Space
from backends.jax.steps import Call, Chain, Record
from spec.model import KERNEL


class Model(Chain):
    """Base of all models: compute dtype, images to (x, space), and feature maps."""

    def __init__(self, model: spec.Model, dtype: str | None = None) -> None:
        """dtype: what to compute in, by name; None: the type of the parameters."""
        super().__init__(spec.modules(model))
        self.model, self.explicit_dtype = model, dtype
        self.stage_names = spec.stage_names(model)
        self.deterministic = False  # as in nnx's own modules, .train() and .eval() set it

    @property
    def dtype(self) -> str:
        """The name of the type that the model computes in."""
        return self.explicit_dtype or str(self._at(self.names[0]).weight[...].dtype)

    def feature_info(self, stages: Iterable[int] | None = None) -> tuple[spec.FeatureInfo, ...]:
        """Stage, channels and stride of each map that `features` returns."""
        return self.model.encoder.feature_info(stages)

    def features(
        self,
        images: Array,
        stages: Iterable[int] | None = None,
        mask: Array | None = None,
        *,
        layout: str = "NHWC",
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        keep_paths: Array | None = None,
        remat: bool = False,
    ) -> tuple[Array, ...]:
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
        return tuple(maps[stage].transpose(axes) for stage in chosen)

    def _maps(self, stages: Collection[int], x: Array, space: Space, call: Call) -> dict[int, Array]:
        """Stage -> its feature map (N, H, W, C), of x from before the stem."""
        maps = {}
        for stage in range(max(stages) + 1):
            x, space = self.run(self.stage_names[stage], x, space, call)
            if stage in stages:
                norm = getattr(self, f"norm{stage}", None)  # of a Backbone with out_norm
                maps[stage] = space.grid(x if norm is None else norm(x))
        return maps

    def _enter(
        self,
        images: Array,
        mask: Array | None,
        call: Call,
        engine: str | None,
        visible: int | None,
        kernels: str,
    ) -> tuple[Array, Space]:
        """Images as x in the space of an engine; see `Classifier`. BackendError for shapes that do not fit."""
        api.check_keep_paths(self.model, images, call.keep_paths, training=not self.deterministic)
        chosen = api.choose(self.model, engines.ENGINES, engine, images, mask, _values(mask), visible)
        return engines.enter(
            chosen["engine"],
            images.astype(self.dtype),
            mask,
            patch=self.model.encoder.patch_size,
            kept=chosen["visible"],
            kernel_size=KERNEL,
            kernels=choose_kernels(kernels, call.platform or jax.default_backend()),
        )


class Classifier(Model):
    """ConvNeXt V2 with a linear head, or without for 0 classes."""

    def __call__(
        self,
        images: Array,
        mask: Array | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        platform: str | None = None,
    ) -> dict[str, Array]:
        """features (N, C3) and, with a head, logits (N, classes) of images (N, H, W, C).

        mask (N, G_h, G_w), 1 = removed. engine None: "visible" where the mask keeps the same number
        of patches of every image, "masked" otherwise. visible: that number; needed by engine "visible"
        where the values of the mask are unknown (while tracing). kernels: "auto", "plain" or "pallas".
        record(path, x, space) sees every step. keep_paths (N, blocks) holds drop-path decisions,
        1 = keep: nothing is drawn here, and a model with drop_path in training mode raises BackendError
        without them. remat recomputes the activations inside a block in the backward pass. platform:
        what the pass is compiled for; None: the one that jax prefers.
        """
        call = Call(record, keep_paths, remat, platform)
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

    def __init__(self, model: spec.FCMAE, dtype: str | None = None) -> None:
        super().__init__(model, dtype)
        self.encoder_names = sum(self.stage_names, ())

    def __call__(
        self,
        images: Array,
        mask: Array | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        weights: Array | None = None,
        platform: str | None = None,
        loss_only: bool = False,
    ) -> dict[str, Array]:
        """encoded (N, G_h, G_w, C3), prediction (N, G_h, G_w, patch^2 * chans), loss () in float32 at least.

        Arguments as in `Classifier`. Without a mask every patch is encoded and the loss is NaN.
        weights (N,): factors on the images' errors in the loss.
        loss_only: return the loss alone; if `visible` is given too, only removed patches are predicted.
        """
        call = Call(record, keep_paths, remat, platform)
        x, space = self.encode(images, mask, call, engine=engine, visible=visible, kernels=kernels)
        decoded, dense = self.run(self.names[len(self.encoder_names) : -1], x, space, call)
        if loss_only and mask is not None and visible is not None:
            removed = removed_patches(mask, visible)
            prediction, _ = self.run(self.names[-1:], take(decoded, removed), dense, call)
            return {"loss": removed_loss(prediction, images, removed, self.model, weights)}
        prediction, _ = self.run(self.names[-1:], decoded, dense, call)
        loss = masked_loss(prediction, images, mask, self.model, weights)
        return {"loss": loss} if loss_only else {"encoded": space.grid(x), "prediction": prediction, "loss": loss}

    def encode(
        self,
        images: Array,
        mask: Array | None = None,
        call: Call | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
    ) -> tuple[Array, Space]:
        """x and its space after the encoder; `space.grid(x)` is (N, G_h, G_w, C3)."""
        call = call or Call()
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        return self.run(self.encoder_names, x, space, call)


class Backbone(Model):
    """The encoder alone, for dense tasks."""

    def __call__(
        self,
        images: Array,
        mask: Array | None = None,
        *,
        engine: str | None = None,
        visible: int | None = None,
        kernels: str = "auto",
        record: Record | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        platform: str | None = None,
    ) -> dict[str, Array]:
        """stage0, stage1, ...: the feature map of each stage (N, H / stride, W / stride, C), 0 at removed sites.

        Arguments as in `Classifier`. `features` chooses stages and layout.
        """
        call = Call(record, keep_paths, remat, platform)
        x, space = self._enter(images, mask, call, engine, visible, kernels)
        maps = self._maps(range(len(self.stage_names)), x, space, call)
        return {f"stage{stage}": value for stage, value in maps.items()}


def masked_loss(
    prediction: Array, images: Array, mask: Array | None, model: spec.FCMAE, weights: Array | None = None
) -> Array:
    """`spec.MaskedError`: mean squared error per removed patch, then over the removed patches of the batch."""
    error = _errors(prediction, patchify(images, model.encoder.patch_size), model, weights)
    if mask is None:
        return jnp.full((), jnp.nan, error.dtype)
    removed = mask != 0
    return jnp.where(removed, error, 0).sum() / removed.sum()


def removed_loss(
    prediction: Array, images: Array, removed: Array, model: spec.FCMAE, weights: Array | None = None
) -> Array:
    """`masked_loss` of predictions (N, R, patch^2 * chans) at the removed patches (N, R) only."""
    patches = take(patchify(images, model.encoder.patch_size), removed)
    return _errors(prediction, patches, model, weights).mean()


def _errors(prediction: Array, patches: Array, model: spec.FCMAE, weights: Array | None) -> Array:
    """The mean squared error of each patch, times its image's weight."""
    error = jnp.square(at_least_float32(prediction) - targets(at_least_float32(patches), model)).mean(-1)
    return error if weights is None else error * weights.reshape(-1, *[1] * (error.ndim - 1)).astype(error.dtype)


def targets(patches: Array, model: spec.FCMAE) -> Array:
    """The values to predict of patches (..., patch^2 * chans), normalised as `spec.MaskedError` says if norm_target."""
    if not model.norm_target:
        return patches
    mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
    return (patches - mean) / jnp.sqrt(variance + spec.EPS)


def _values(mask: Array | None) -> np.ndarray | None:
    """The mask on the host; None while it is traced."""
    return None if mask is None or isinstance(mask, jax.core.Tracer) else np.asarray(mask)
