"""`python -m examples.segment_jax`: a segmentation head on feature maps, in a plain optax loop."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import twinnext as tn
from examples.scenes import CLASSES, mean_iou, scenes

MODEL = tn.encoder(depths=(1, 1, 1), dims=(24, 48, 96), in_chans=1, stem_stride=2, out_norm=True)


class Segmenter(nnx.Module):
    """A feature pyramid: maps are added from coarse to fine, and the sum is classified per pixel."""

    def __init__(self, width: int = 32) -> None:
        self.encoder = tn.build(MODEL, "jax")
        channels: Sequence[int] = [info.channels for info in self.encoder.feature_info()]
        rngs = nnx.Rngs(0)
        self.lateral = nnx.List([nnx.Linear(size, width, rngs=rngs) for size in channels])
        self.classify = nnx.Conv(width, CLASSES, (3, 3), rngs=rngs)

    def __call__(self, images: Array) -> Array:
        maps = self.encoder.features(images)
        x = self.lateral[-1](maps[-1])
        for lateral, finer in zip(self.lateral[-2::-1], maps[-2::-1], strict=True):
            x = lateral(finer) + x.repeat(2, 1).repeat(2, 2)
        logits = self.classify(nnx.gelu(x))
        return jax.image.resize(logits, (*images.shape[:3], CLASSES), "bilinear")  # N H W classes


def train(steps: int = 100) -> float:
    """Train on made scenes; returns the mean intersection over union on scenes of other digits."""
    graph, params = nnx.split(Segmenter())
    optimizer = optax.adamw(4e-3, weight_decay=0.01)
    state = optimizer.init(params)

    def loss_of(params: nnx.State, images: Array, labels: Array) -> Array:
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def update(
        params: nnx.State, state: optax.OptState, images: Array, labels: Array
    ) -> tuple[nnx.State, optax.OptState, Array]:
        loss, grads = jax.value_and_grad(loss_of)(params, images, labels)
        changes, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, changes), state, loss

    for step in range(steps):
        params, state, loss = update(params, state, *map(jnp.asarray, scenes(step)))
        if step % 20 == 0:
            print(f"step {step}: loss {loss:.3f}")
    images, labels = scenes(0, 64, held_out=True)
    found = jax.jit(lambda params, images: nnx.merge(graph, params)(images).argmax(-1))(params, images)
    return mean_iou(np.asarray(found), labels)


if __name__ == "__main__":
    print(f"mean IoU {train():.3f}")
