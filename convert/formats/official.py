"""The published PyTorch code: dense names (fine-tuned and released files), and sparse names (pre-training).

In the sparse kernels the first spatial axis is the fastest, hence (kw kh).
"""

from dataclasses import replace

from convert.rules import USUAL, Format, Rule, encoder_of_fcmae
from spec import FCMAE


def _dense_block(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{ours}.gamma", f"{theirs}.gamma"),
        Rule(f"{ours}.dwconv.*", f"{theirs}.dwconv.*"),
        Rule(f"{ours}.norm.*", f"{theirs}.norm.*"),
        Rule(f"{ours}.pwconv1.*", f"{theirs}.pwconv1.*"),
        Rule(f"{ours}.grn.gamma", f"{theirs}.grn.gamma", "1 1 1 ch"),
        Rule(f"{ours}.grn.beta", f"{theirs}.grn.beta", "1 1 1 ch"),
        Rule(f"{ours}.pwconv2.*", f"{theirs}.pwconv2.*"),
    )


_DECODER = (
    Rule("proj.weight", "proj.weight", "out in 1 1"),
    Rule("proj.bias", "proj.bias"),
    *_dense_block("decoder.{j}", "decoder.{j}"),
    Rule("pred.weight", "pred.weight", "out in 1 1"),
    Rule("pred.bias", "pred.bias"),
)

ENCODER = (
    Rule("downsample_layers.{i}.{j}.*", "{trunk}downsample_layers.{i}.{j}.*"),
    *_dense_block("stages.{i}.{j}", "{trunk}stages.{i}.{j}"),
)

DENSE = Format(
    "official-dense",
    sign=r"(.*\.)?downsample_layers\.0\.0\.weight",
    rules=(
        Rule("mask_token", "mask_token", "1 ch 1 1"),
        *ENCODER,
        Rule("norm.*", "norm.*"),
        Rule("head.*", "head.*"),
        Rule("norm{i}.*", "norm{i}.*"),
        *_DECODER,
    ),
    trunks=("", "encoder."),
    trunk=encoder_of_fcmae,
)

SPARSE = Format(
    "official-sparse",
    sign=r"encoder\..*\.kernel",
    rules=(
        Rule("mask_token", "mask_token", "1 ch 1 1"),
        Rule("downsample_layers.0.{j}.*", "encoder.downsample_layers.0.{j}.*"),
        Rule("downsample_layers.{i}.0.*", "encoder.downsample_layers.{i}.0.ln.*"),
        Rule("downsample_layers.{i}.1.weight", "encoder.downsample_layers.{i}.1.kernel", "(kw kh) in out"),
        Rule("downsample_layers.{i}.1.bias", "encoder.downsample_layers.{i}.1.bias", "1 ch"),
        Rule("stages.{i}.{j}.dwconv.weight", "encoder.stages.{i}.{j}.dwconv.kernel", "(kw kh) (ch one)"),
        Rule("stages.{i}.{j}.dwconv.bias", "encoder.stages.{i}.{j}.dwconv.bias", "1 ch"),
        Rule("stages.{i}.{j}.norm.*", "encoder.stages.{i}.{j}.norm.ln.*"),
        Rule("stages.{i}.{j}.pwconv1.*", "encoder.stages.{i}.{j}.pwconv1.linear.*"),
        Rule("stages.{i}.{j}.pwconv2.*", "encoder.stages.{i}.{j}.pwconv2.linear.*"),
        Rule("stages.{i}.{j}.grn.gamma", "encoder.stages.{i}.{j}.grn.gamma", "1 ch"),
        Rule("stages.{i}.{j}.grn.beta", "encoder.stages.{i}.{j}.grn.beta", "1 ch"),
        *_DECODER,
    ),
    computes=USUAL | {"grn_scope": "batch"},
)

BSP36 = replace(
    DENSE,
    name="bsp36",
    trunks=("encoder.", "backbone."),
    trunk=lambda model, head: "encoder." if isinstance(model, FCMAE) else "backbone.",
    fields=lambda shapes: {"grn_scope": "grid"} if "mask_token" in shapes else {},
)
"""BSP36/fcmae: a dense model with a mask, so that GRN sums over the whole grid; its classifiers have a backbone."""
