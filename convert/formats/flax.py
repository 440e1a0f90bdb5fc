"""Flax trees: the spec's paths, channels last; leaves by flax's names, or, of our own nnx modules, by the spec's."""

import re

from convert.rules import Format, Rule, encoder_of_fcmae


def _layer(ours: str, theirs: str, axes: str) -> tuple[Rule, ...]:
    return (Rule(f"{ours}.weight", f"{theirs}.kernel", axes), Rule(f"{ours}.bias", f"{theirs}.bias"))


def _norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (Rule(f"{ours}.weight", f"{theirs}.scale"), Rule(f"{ours}.bias", f"{theirs}.bias"))


def _block(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        *_layer(f"{ours}.dwconv", f"{theirs}.dwconv", "kh kw one ch"),
        *_norm(f"{ours}.norm", f"{theirs}.norm"),
        *_layer(f"{ours}.pwconv1", f"{theirs}.pwconv1", "in out"),
        Rule(f"{ours}.gamma", f"{theirs}.gamma"),
        Rule(f"{ours}.grn.gamma", f"{theirs}.grn.gamma"),
        Rule(f"{ours}.grn.beta", f"{theirs}.grn.beta"),
        *_layer(f"{ours}.pwconv2", f"{theirs}.pwconv2", "in out"),
    )


FLAX = Format(
    "flax",
    sign=r"(.*\.)?downsample_layers\.0\.1\.scale",
    rules=(
        *_layer("downsample_layers.0.0", "{trunk}downsample_layers.0.0", "kh kw in out"),
        *_norm("downsample_layers.0.1", "{trunk}downsample_layers.0.1"),
        *_norm("downsample_layers.{i}.0", "{trunk}downsample_layers.{i}.0"),
        *_layer("downsample_layers.{i}.1", "{trunk}downsample_layers.{i}.1", "kh kw in out"),
        *_block("stages.{i}.{j}", "{trunk}stages.{i}.{j}"),
        *_norm("norm", "norm"),
        *_layer("head", "head", "in out"),
        *_norm("norm{i}", "norm{i}"),
        *_layer("proj", "proj", "in out"),
        Rule("mask_token", "mask_token"),
        *_block("decoder.{j}", "decoder.{j}"),
        *_layer("pred", "pred", "in out"),
    ),
    trunks=("", "encoder."),
    trunk=encoder_of_fcmae,
    computes={},
)

NNX = Format(
    "nnx",
    sign=r"(.*\.)?stages\.0\.0\.dwconv\.weight",
    sign_shape=(None, None, 1, None),  # channels last
    rules=tuple(rule._replace(theirs=re.sub(r"\.(kernel|scale)$", ".weight", rule.theirs)) for rule in FLAX.rules),
    trunks=FLAX.trunks,
    trunk=FLAX.trunk,
    computes={},
)
