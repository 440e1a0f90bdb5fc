"""A model walked step by step: forward with every intermediate, and gradients of every parameter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import spec
from parity_tests.oracle import steps
from parity_tests.oracle.steps import Field, Vjp

Arrays = dict[str, np.ndarray]


def tree(model: spec.Model) -> spec.Named:
    """The steps of the model in the order of execution."""
    return model.steps


def pixels_kept(model: spec.Model, mask: np.ndarray) -> np.ndarray:
    """(N, G_h, G_w), 1 = removed -> (N, H, W) bool, True = visible."""
    side = model.encoder.patch_size
    return np.asarray(mask == 0).repeat(side, axis=1).repeat(side, axis=2)


def patchify(model: spec.FCMAE, images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C): row, column, channel, the channel fastest."""
    (rows, columns), side = model.grid, model.encoder.patch_size
    cut = images.reshape(len(images), rows, side, columns, side, -1)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows, columns, -1)


def target(model: spec.FCMAE, images: np.ndarray) -> np.ndarray:
    """The pixels of every patch, (x - mean) / sqrt(unbiased variance + eps) when the spec normalises them."""
    patches = patchify(model, images)
    if not model.norm_target:
        return patches
    centred = patches - patches.mean(-1, keepdims=True)
    variance = (centred**2).sum(-1, keepdims=True) / (patches.shape[-1] - 1)
    return centred / np.sqrt(variance + spec.EPS)


def masked_error(prediction: np.ndarray, goal: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of a patch, averaged over the removed patches of the batch, and its slope."""
    removed = mask.astype(bool)
    if not removed.any():
        return np.array(np.nan), np.zeros_like(prediction)
    error = np.where(removed[..., None], prediction - goal, 0)
    size = removed.sum() * prediction.shape[-1]
    return (error**2).sum() / size, 2 * error / size


def feature_map(field: Field) -> np.ndarray:
    """The values at the visible sites, exactly 0 at removed ones."""
    return field.visible


@dataclass(frozen=True)
class Rules:
    """The rule of every step, each replaceable: a mutant is these rules with one of them wrong."""

    tree: Callable[[Any], spec.Named] = tree
    pixels_kept: Callable[..., np.ndarray] = pixels_kept
    patch_conv: Callable[..., tuple[Field, Vjp]] = steps.patch_conv
    depthwise_conv: Callable[..., tuple[Field, Vjp]] = steps.depthwise_conv
    layer_norm: Callable[..., tuple[Field, Vjp]] = steps.layer_norm
    dense: Callable[..., tuple[Field, Vjp]] = steps.dense
    gelu: Callable[..., tuple[Field, Vjp]] = steps.gelu
    grn: Callable[..., tuple[Field, Vjp]] = steps.grn
    layer_scale: Callable[..., tuple[Field, Vjp]] = steps.layer_scale
    fill_removed: Callable[..., tuple[Field, Vjp]] = steps.fill_removed
    global_pool: Callable[..., tuple[Field, Vjp]] = steps.global_pool
    residual: Callable[..., tuple[np.ndarray, Vjp]] = steps.residual
    feature_map: Callable[[Field], np.ndarray] = feature_map
    target: Callable[..., np.ndarray] = target
    masked_error: Callable[..., tuple[np.ndarray, np.ndarray]] = masked_error

    def of(self, step: spec.Step) -> Callable[..., tuple[Field, Vjp]]:
        rules: dict[type, Callable[..., tuple[Field, Vjp]]] = {
            spec.PatchConv: self.patch_conv,
            spec.DepthwiseConv: self.depthwise_conv,
            spec.LayerNorm: self.layer_norm,
            spec.Dense: self.dense,
            spec.Gelu: self.gelu,
            spec.GRN: self.grn,
            spec.LayerScale: self.layer_scale,
            spec.FillRemoved: self.fill_removed,
            spec.GlobalPool: self.global_pool,
        }
        return rules[type(step)]


RULES = Rules()


@dataclass
class Walk:
    """One pass over the steps: the rules, the arrays, the drop-path decisions, and what was seen on the way."""

    rules: Rules
    arrays: Mapping[str, np.ndarray]
    keep_paths: np.ndarray | None
    intermediates: Arrays

    def run(self, named: spec.Named, field: Field, prefix: str = "") -> tuple[Field, Vjp]:
        pulls: list[Vjp] = []
        for name, step in named:
            path = f"{prefix}{name}"
            go = self.residual if isinstance(step, spec.Residual) else self.leaf
            field, pull = go(path, step, field)
            pulls.append(pull)
            self.intermediates[path] = field.visible
        return field, lambda dy: _chain(pulls, dy)

    def leaf(self, path: str, step: Any, field: Field) -> tuple[Field, Vjp]:
        names = {leaf: f"{path}.{leaf}" if leaf else path for leaf in step.arrays()}
        field, pull = self.rules.of(step)(step, {leaf: self.arrays[name] for leaf, name in names.items()}, field)

        def vjp(dy: np.ndarray) -> tuple[np.ndarray, Arrays]:
            dx, gradients = pull(dy)
            return dx, {names[leaf]: gradient for leaf, gradient in gradients.items()}

        return field, vjp

    def residual(self, path: str, step: spec.Residual, field: Field) -> tuple[Field, Vjp]:
        branch, pull_branch = self.run(step.body, field, f"{path}.")
        y, pull_sum = self.rules.residual(field.x, branch.x, self.factor(step))

        def vjp(dy: np.ndarray) -> tuple[np.ndarray, Arrays]:
            straight, rest = pull_sum(dy)
            through, gradients = pull_branch(rest["branch"])
            return straight + through, gradients

        return Field(y, field.keep), vjp

    def factor(self, step: spec.Residual) -> np.ndarray:
        if self.keep_paths is None or step.index >= self.keep_paths.shape[1]:  # evaluation, or a decoder's block
            return np.ones(())
        return (self.keep_paths[:, step.index] / (1 - step.drop_path)).reshape(-1, 1, 1, 1)


def _chain(pulls: list[Vjp], dy: np.ndarray) -> tuple[np.ndarray, Arrays]:
    gradients: Arrays = {}
    for pull in reversed(pulls):
        dy, more = pull(dy)
        gradients.update(more)
    return dy, gradients


def start(model: spec.Model, images: np.ndarray, mask: np.ndarray | None, rules: Rules) -> Field:
    """The images with their visible sites; without a mask every site is visible."""
    keep = np.ones(images.shape[:3], bool) if mask is None else rules.pixels_kept(model, mask)
    return Field(np.asarray(images, np.float64), keep)


def forward(
    model: spec.Model,
    arrays: Mapping[str, np.ndarray],
    images: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    rules: Rules = RULES,
) -> Arrays:
    """Every step's output under its path, and a model's own outputs as backends name them."""
    intermediates: Arrays = {}
    walk = Walk(rules, arrays, None, intermediates)
    first = start(model, images, mask, rules)
    field, _ = walk.run(rules.tree(model), first)
    if isinstance(model, spec.Backbone):
        return {**intermediates, **feature_maps(model, walk, first.keep)}
    if isinstance(model, spec.Classifier):
        outputs = {"features": "norm", "logits": "head"} if model.num_classes else {"features": "norm"}
        heads = {name: intermediates[name][:, 0, 0] for name in ("pool", *outputs.values())}
        return {**intermediates, **heads, **{output: heads[name] for output, name in outputs.items()}}
    mask = np.zeros((len(images), *model.grid)) if mask is None else mask
    loss, _ = rules.masked_error(field.x, rules.target(model, images), mask)
    last = [name for name, _ in model.steps if name.startswith("encoder.")][-1]
    return {**intermediates, "encoded": intermediates[last], "prediction": field.x, "loss": loss}


def feature_maps(model: spec.Backbone, walk: Walk, keep: np.ndarray) -> Arrays:
    """What the last block of each stage has left, normalised if the model says so; keep (N, H, W) of the images."""
    norms, maps = dict(model.out_norms), {}
    for stage, info in enumerate(model.encoder.feature_info()):
        last = f"stages.{stage}.{model.encoder.depths[stage] - 1}"
        field = Field(walk.intermediates[last], keep[:, :: info.stride, :: info.stride])
        if model.out_norm:
            field, _ = walk.leaf(f"norm{stage}", norms[f"norm{stage}"], field)
        maps[f"stage{stage}"] = walk.rules.feature_map(field)
    return maps


def gradients(
    model: spec.FCMAE,
    arrays: Mapping[str, np.ndarray],
    images: np.ndarray,
    mask: np.ndarray,
    *,
    rules: Rules = RULES,
) -> Arrays:
    """Gradients of the masked error by every parameter, in the order of the parameter table."""
    field, pull = Walk(rules, arrays, None, {}).run(rules.tree(model), start(model, images, mask, rules))
    _, slope = rules.masked_error(field.x, rules.target(model, images), mask)
    found = pull(slope)[1]
    return {name: found[name] for name in spec.parameters(model)}
