"""Wrong variants of the model, each named, each seen in real code or one slip away from it: all must die.

A mutant is the oracle with one rule replaced. It dies when, on one of `strategies.CASES`,
its outputs or gradients lie outside the tolerance under which both backends pass there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

import spec
from parity_tests.oracle import RULES, Field, Rules, Vjp
from parity_tests.oracle import model as whole
from parity_tests.oracle import steps as rules

Result = tuple[Field, Vjp]
Rule = Callable[..., Result]


@dataclass(frozen=True)
class Mutant:
    """Rules with one of them wrong. `only_float64`: in float32 its effect drowns in rounding, on every case."""

    rules: Rules
    only_float64: bool = False


def _no_gradient(dy: np.ndarray) -> Any:
    raise AssertionError("a forward mutant must die before its gradients are asked for")


def _forward(rule: Callable[..., np.ndarray]) -> Rule:
    """A wrong forward: (step, leaves, field) -> values; its gradients are never asked for."""
    return lambda step, p, field: (Field(rule(step, p, field), field.keep), _no_gradient)


def _on(rule: Rule, change: Callable[[Any, Any, Field], tuple[Any, Any, Field]]) -> Rule:
    """The values of the rule on changed arguments, at the sites of the rule on the true ones."""

    def changed(step: Any, p: Any, field: Field) -> Result:
        wrong, right = rule(*change(step, p, field))[0], rule(step, p, field)[0]
        return Field(wrong.x, right.keep), _no_gradient

    return changed


def _unmasked(rule: Rule) -> Rule:
    """The rule blind to the mask: it reads whatever stands at removed sites."""
    return _on(rule, lambda step, p, field: (step, p, Field(field.x, np.ones_like(field.keep))))


def _leaf(rule: Rule, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """The rule with one of its arrays changed."""
    return _on(
        rule, lambda step, p, field: (step, {key: change(a) if key == name else a for key, a in p.items()}, field)
    )


def _with(rule: Rule, **fields: Any) -> Rule:
    """The rule of a step whose fields differ."""
    return _on(rule, lambda step, p, field: (replace(step, **fields), p, field))


def _gradient(rule: Rule, change: Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]) -> Rule:
    """The right forward with a wrong product: change(step, p, field, dy, dx, gradients) -> (dx, gradients)."""

    def changed(step: Any, p: Any, field: Field) -> Result:
        out, pull = rule(step, p, field)
        return out, lambda dy: change(step, p, field, dy, *pull(dy))

    return changed


# ---- normalisation


def _fast_variance(step: spec.LayerNorm, p: Any, field: Field) -> np.ndarray:
    mean = field.x.mean(-1, keepdims=True)
    variance = np.maximum((field.x**2).mean(-1, keepdims=True) - mean**2, 0)
    return p["weight"] * (field.x - mean) / np.sqrt(variance + step.eps) + p["bias"]


def _eps_outside(step: spec.LayerNorm, p: Any, field: Field) -> np.ndarray:
    centred = field.x - field.x.mean(-1, keepdims=True)
    return p["weight"] * centred / (np.sqrt((centred**2).mean(-1, keepdims=True)) + step.eps) + p["bias"]


def _unbiased(step: spec.LayerNorm, p: Any, field: Field) -> np.ndarray:
    centred = field.x - field.x.mean(-1, keepdims=True)
    variance = field.x.var(-1, keepdims=True, ddof=1)
    return p["weight"] * centred / np.sqrt(variance + step.eps) + p["bias"]


def _rms(step: spec.LayerNorm, p: Any, field: Field) -> np.ndarray:
    return p["weight"] * field.x / np.sqrt((field.x**2).mean(-1, keepdims=True) + step.eps) + p["bias"]


def _grn(
    inside: float = 0.0,
    response: Callable[[np.ndarray, float], np.ndarray] = lambda norm, eps: norm / (norm.mean(-1, keepdims=True) + eps),
    skip: float = 1.0,
    shift: float = 1.0,
    divisor: Callable[[Field], Any] = lambda field: 1.0,
) -> Rule:
    """GRN per image with one of its parts another."""

    def wrong(step: spec.GRN, p: Any, field: Field) -> np.ndarray:
        axes = (0, 1, 2) if step.scope == "batch" else (1, 2)
        summed = field.x if step.scope == "grid" else field.visible
        norm = np.sqrt(((summed**2) / divisor(field)).sum(axes, keepdims=True) + inside)
        return p["gamma"] * field.x * response(norm, step.eps) + shift * p["beta"] + skip * field.x

    return _forward(wrong)


def _other_scope(step: spec.GRN, p: Any, field: Field) -> Result:
    other = {"image": "batch", "batch": "image", "grid": "image"}[step.scope]
    return _with(rules.grn, scope=other)(step, p, field)


def _grid_is_image(step: spec.GRN, p: Any, field: Field) -> Result:
    return _with(rules.grn, scope="image" if step.scope == "grid" else step.scope)(step, p, field)


def _visible_count(field: Field) -> np.ndarray:
    return field.keep.sum((1, 2)).reshape(-1, 1, 1, 1)


def _layer_scale(wrong: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
    return _forward(lambda step, p, field: wrong(p[""], field.x))


# ---- activation


def _tanh_gelu(step: spec.Gelu, p: Any, field: Field) -> np.ndarray:
    return 0.5 * field.x * (1 + np.tanh(np.sqrt(2 / np.pi) * (field.x + 0.044715 * field.x**3)))


def _sigmoid_gelu(step: spec.Gelu, p: Any, field: Field) -> np.ndarray:
    return field.x / (1 + np.exp(-1.702 * field.x))


# ---- space


def _shifted(step: spec.DepthwiseConv, p: Any, field: Field) -> np.ndarray:
    """SAME padding as for an even kernel: one site more on one side."""
    rolled = np.zeros_like(field.x)
    rolled[:, :-1, :-1] = rules.depthwise_conv(step, p, field)[0].x[:, 1:, 1:]
    return rolled


def _wrapped(step: spec.DepthwiseConv, p: Any, field: Field) -> np.ndarray:
    """Circular padding."""
    reach = range(-(step.size // 2), step.size // 2 + 1)
    parts = [np.roll(field.visible, (-i, -j), (1, 2)) * p["weight"][:, 0, i + 3, j + 3] for i in reach for j in reach]
    return sum(parts) + p.get("bias", 0)


def _always_biased(step: spec.DepthwiseConv, p: Any, field: Field) -> np.ndarray:
    """With a small bias where there should be none; LayerNorm would hide one that is the same for all channels."""
    y = rules.depthwise_conv(step, p, field)[0].x
    return y if step.bias else y + 1e-3 * np.arange(step.channels)


def _by_columns(model: spec.Model, mask: np.ndarray) -> np.ndarray:
    images, rows, columns = mask.shape
    return whole.pixels_kept(model, mask.reshape(images, columns, rows).swapaxes(1, 2))


def _decoder_keeps_mask(step: spec.FillRemoved, p: Any, field: Field) -> Result:
    out, _ = rules.fill_removed(step, p, field)
    return Field(out.x, field.keep), _no_gradient


def _token_added(step: spec.FillRemoved, p: Any, field: Field) -> Result:
    removed = ~field.keep[..., None]
    return Field(field.x + removed * p[""], np.ones_like(field.keep)), _no_gradient


def _token_everywhere(step: spec.FillRemoved, p: Any, field: Field) -> Result:
    return Field(np.broadcast_to(p[""], field.x.shape), np.ones_like(field.keep)), _no_gradient


def _zeros_for_token(step: spec.FillRemoved, p: Any, field: Field) -> Result:
    return Field(field.visible, np.ones_like(field.keep)), _no_gradient


# ---- the tree


def _swap(neighbours: Callable[[spec.Step, spec.Step], bool]) -> Callable[[spec.Model], spec.Named]:
    """Two neighbours in the other order, wherever their widths let them."""

    def tree(model: spec.Model) -> spec.Named:
        steps = list(model.steps)
        for i, ((_, first), (_, second)) in enumerate(pairwise(model.steps)):
            if neighbours(first, second):
                steps[i : i + 2] = steps[i + 1], steps[i]
        return tuple(steps)

    return tree


def _is_downsampling(norm: spec.Step, conv: spec.Step) -> bool:
    fits = isinstance(conv, spec.PatchConv) and conv.in_chans == conv.out_chans
    return fits and isinstance(norm, spec.LayerNorm)


def _is_filling(dense: spec.Step, fill: spec.Step) -> bool:
    fits = isinstance(dense, spec.Dense) and dense.in_chans == dense.out_chans
    return fits and isinstance(fill, spec.FillRemoved)


def _is_pooling(pool: spec.Step, norm: spec.Step) -> bool:
    return isinstance(pool, spec.GlobalPool)


def _in_blocks(change: Callable[[spec.Named], spec.Named]) -> Callable[[spec.Model], spec.Named]:
    """A change to the body of every block."""

    def tree(model: spec.Model) -> spec.Named:
        return tuple(
            (name, replace(step, body=change(step.body)) if isinstance(step, spec.Residual) else step)
            for name, step in model.steps
        )

    return tree


def _without(name: str) -> Callable[[spec.Named], spec.Named]:
    return lambda body: tuple(pair for pair in body if pair[0] != name)


def _grn_before_act(body: spec.Named) -> spec.Named:
    order = ("dwconv", "norm", "pwconv1", "grn", "act", "pwconv2", "gamma")
    return tuple(sorted(body, key=lambda pair: order.index(pair[0])))


def _decoder(change: Callable[[spec.Named], spec.Named]) -> Callable[[spec.Model], spec.Named]:
    """A change to the body of the decoder's blocks."""

    def tree(model: spec.Model) -> spec.Named:
        pairs = zip(_in_blocks(change)(model), model.steps, strict=True)
        return tuple(new if new[0].startswith("decoder.") else old for new, old in pairs)

    return tree


def _batch_scope(body: spec.Named) -> spec.Named:
    return tuple((name, replace(step, scope="batch") if name == "grn" else step) for name, step in body)


# ---- target and loss


def _target(
    order: tuple[int, ...] = (0, 1, 2, 3, 4), ddof: int = 1, eps: float = spec.EPS, per_image: bool = False
) -> Callable[..., np.ndarray]:
    """The normalised target with patches flattened in another order, or with other statistics."""

    def wrong(model: spec.FCMAE, images: np.ndarray) -> np.ndarray:
        side, (rows, columns) = model.encoder.patch_size, model.grid
        patches = whole.patchify(model, images).reshape(len(images), rows * columns, side, side, -1)
        patches = patches.transpose(order).reshape(len(images), rows, columns, -1)
        if not model.norm_target:
            return patches
        axes = (1, 2, 3) if per_image else (3,)
        mean, variance = patches.mean(axes, keepdims=True), patches.var(axes, keepdims=True, ddof=ddof)
        return (patches - mean) / np.sqrt(variance + eps)

    return wrong


def _other_norm_target(model: spec.FCMAE, images: np.ndarray) -> np.ndarray:
    return whole.target(replace(model, norm_target=not model.norm_target), images)


def _error_where(mask_of: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    return lambda prediction, goal, mask: whole.masked_error(prediction, goal, mask_of(mask))


def _absolute_error(prediction: np.ndarray, goal: np.ndarray, mask: np.ndarray) -> Any:
    return np.abs(prediction - goal).mean(-1)[mask.astype(bool)].mean(), np.zeros_like(prediction)


def _summed_error(prediction: np.ndarray, goal: np.ndarray, mask: np.ndarray) -> Any:
    loss, slope = whole.masked_error(prediction, goal, mask)
    return loss * len(prediction), slope * len(prediction)


# ---- gradients only


def _grn_constant_response(step: Any, p: Any, field: Field, dy: Any, dx: Any, gradients: Any) -> Any:
    norm = np.sqrt((field.visible**2).sum((1, 2), keepdims=True))
    return dy * (p["gamma"] * norm / (norm.mean(-1, keepdims=True) + step.eps) + 1), gradients


def _norm_constant_variance(step: Any, p: Any, field: Field, dy: Any, dx: Any, gradients: Any) -> Any:
    root = np.sqrt(field.x.var(-1, keepdims=True) + step.eps)
    dz = dy * p["weight"]
    return (dz - dz.mean(-1, keepdims=True)) / root, gradients


def _nan_at_zero(step: Any, p: Any, field: Field, dy: Any, dx: Any, gradients: Any) -> Any:
    dead = (field.visible == 0).all((1, 2), keepdims=True)
    return np.where(dead, np.nan, dx), gradients


def _layer_scale_detached(step: Any, p: Any, field: Field, dy: Any, dx: Any, gradients: Any) -> Any:
    return dy, gradients


def _token_from_all_sites(step: Any, p: Any, field: Field, dy: Any, dx: Any, gradients: Any) -> Any:
    return dx, {"": dy.sum((0, 1, 2))}


def _branch_detached(x: np.ndarray, branch: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, Vjp]:
    return x + factor * branch, lambda dy: (0 * dy, {"branch": dy * factor})


def _flip(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda kernel: np.flip(kernel, axis)


def _transpose(kernel: np.ndarray) -> np.ndarray:
    return kernel.swapaxes(2, 3)


def _mutants(only_float64: bool = False, **changes: dict[str, Any]) -> dict[str, Mutant]:
    return {name.replace("_", " "): Mutant(replace(RULES, **change), only_float64) for name, change in changes.items()}


MUTANTS: dict[str, Mutant] = {
    **_mutants(
        LayerNorm_eps_1e5={"layer_norm": _with(rules.layer_norm, eps=1e-5)},
        LayerNorm_eps_always_1e6={"layer_norm": _with(rules.layer_norm, eps=1e-6)},
        LayerNorm_eps_1e12={"layer_norm": _with(rules.layer_norm, eps=1e-12)},
        LayerNorm_eps_outside_the_root={"layer_norm": _forward(_eps_outside)},
        LayerNorm_unbiased_variance={"layer_norm": _forward(_unbiased)},
        LayerNorm_without_mean={"layer_norm": _forward(_rms)},
        LayerNorm_without_bias={"layer_norm": _leaf(rules.layer_norm, "bias", np.zeros_like)},
        GRN_over_removed_sites_too={"grn": _unmasked(rules.grn)},
        GRN_of_the_grid_over_visible_sites={"grn": _grid_is_image},
        GRN_of_the_other_scope={"grn": _other_scope},
        GRN_divided_by_the_sum={"grn": _grn(response=lambda norm, eps: norm / (norm.sum(-1, keepdims=True) + eps))},
        GRN_eps_inside_the_root={"grn": _grn(inside=1e-6)},
        GRN_without_eps={"grn": _grn(response=lambda norm, eps: norm / norm.mean(-1, keepdims=True))},
        GRN_not_divided={"grn": _grn(response=lambda norm, eps: norm)},
        GRN_without_residual={"grn": _grn(skip=0)},
        GRN_without_beta={"grn": _grn(shift=0)},
        GRN_in_the_decoder_over_the_batch={"tree": _decoder(_batch_scope)},
        no_GRN={"tree": _in_blocks(_without("grn"))},
        GRN_before_the_activation={"tree": _in_blocks(_grn_before_act)},
        no_LayerScale={"tree": _in_blocks(_without("gamma"))},
        LayerScale_added={"layer_scale": _layer_scale(lambda gamma, x: gamma + x)},
        LayerScale_of_one_and_gamma={"layer_scale": _layer_scale(lambda gamma, x: (1 + gamma) * x)},
        LayerScale_of_the_channels_backwards={"layer_scale": _layer_scale(lambda gamma, x: gamma[::-1] * x)},
        LayerScale_in_the_encoder_only={"tree": _decoder(_without("gamma"))},
        no_norm_in_the_block={"tree": _in_blocks(_without("norm"))},
        tanh_GELU={"gelu": _forward(_tanh_gelu)},
        sigmoid_GELU={"gelu": _forward(_sigmoid_gelu)},
        mask_at_the_stem_only={"depthwise_conv": _unmasked(rules.depthwise_conv), "grn": _unmasked(rules.grn)},
        depthwise_reads_removed_sites={"depthwise_conv": _unmasked(rules.depthwise_conv)},
        depthwise_kernel_flipped={"depthwise_conv": _leaf(rules.depthwise_conv, "weight", _flip(2))},
        depthwise_kernel_transposed={"depthwise_conv": _leaf(rules.depthwise_conv, "weight", _transpose)},
        depthwise_padding_off_by_one={"depthwise_conv": _forward(_shifted)},
        depthwise_padding_circular={"depthwise_conv": _forward(_wrapped)},
        depthwise_always_with_bias={"depthwise_conv": _forward(_always_biased)},
        depthwise_without_bias={"depthwise_conv": _leaf(rules.depthwise_conv, "bias", np.zeros_like)},
        patch_kernel_transposed={"patch_conv": _leaf(rules.patch_conv, "weight", _transpose)},
        patch_kernel_flipped={"patch_conv": _leaf(rules.patch_conv, "weight", _flip(3))},
        patch_conv_without_bias={"patch_conv": _leaf(rules.patch_conv, "bias", np.zeros_like)},
        Dense_without_bias={"dense": _leaf(rules.dense, "bias", np.zeros_like)},
        downsampling_convolves_before_it_normalises={"tree": _swap(_is_downsampling)},
        no_residual={"residual": lambda x, branch, factor: (factor * branch, _no_gradient)},
        mask_inverted={"pixels_kept": lambda model, mask: whole.pixels_kept(model, 1 - mask)},
        mask_read_by_columns={"pixels_kept": _by_columns},
        mask_token_added={"fill_removed": _token_added},
        mask_token_everywhere={"fill_removed": _token_everywhere},
        zeros_for_the_mask_token={"fill_removed": _zeros_for_token},
        mask_token_before_the_projection={"tree": _swap(_is_filling)},
        decoder_sees_the_mask={"fill_removed": _decoder_keeps_mask},
        pool_after_the_norm={"tree": _swap(_is_pooling)},
        pool_over_removed_sites_too={"global_pool": _unmasked(rules.global_pool)},
        feature_maps_with_the_norms_bias_at_removed_sites={"feature_map": lambda field: field.x},
        target_in_order_channel_row_column={"target": _target((0, 1, 4, 2, 3))},
        target_in_order_column_row_channel={"target": _target((0, 1, 3, 2, 4))},
        target_of_biased_variance={"target": _target(ddof=0)},
        target_eps_1e5={"target": _target(eps=1e-5)},
        target_normalised_by_image={"target": _target(per_image=True)},
        target_normalised_or_not_the_other_way={"target": _other_norm_target},
        loss_over_visible_patches={"masked_error": _error_where(lambda mask: 1 - mask)},
        loss_over_all_patches={"masked_error": _error_where(np.ones_like)},
        loss_absolute={"masked_error": _absolute_error},
        loss_summed_over_images={"masked_error": _summed_error},
        gradient_holds_GRNs_response_constant={"grn": _gradient(rules.grn, _grn_constant_response)},
        gradient_of_GRN_NaN_at_zero={"grn": _gradient(rules.grn, _nan_at_zero)},
        gradient_holds_LayerNorms_variance_constant={
            "layer_norm": _gradient(rules.layer_norm, _norm_constant_variance)
        },
        gradient_without_LayerScale={"layer_scale": _gradient(rules.layer_scale, _layer_scale_detached)},
        gradient_of_the_token_from_all_sites={"fill_removed": _gradient(rules.fill_removed, _token_from_all_sites)},
        gradient_stops_at_the_residual={"residual": _branch_detached},
    ),
    **_mutants(
        only_float64=True,
        LayerNorm_fast_variance={"layer_norm": _forward(_fast_variance)},
        GRN_mean_square_for_sum={"grn": _grn(divisor=_visible_count)},
    ),
}
