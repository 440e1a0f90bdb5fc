"""timm: stem, stages that begin with a downsampling, a head of pool, norm, fc; its features; its towers of CLIP."""

from collections.abc import Mapping
from typing import Any

from convert.rules import Format, Part, Rule
from spec import Model

CONV_MLP = [f"{family}_{size}" for family in ("convnext", "convnextv2") for size in ("atto", "femto", "pico", "nano")]
"""The sizes whose linear layers timm builds as 1x1 convolutions."""


def _mlp(model: Model) -> str:
    return "out in 1 1" if model.encoder.preset in CONV_MLP else "out in"


def _fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The epsilon of convnext_xxlarge, unlike that of every other size."""
    stem = shapes.get("downsample_layers.0.0.weight", (0,))[0]
    return {"norm_eps": 1e-5} if stem == 384 and "stages.2.29.gamma" in shapes else {}


TIMM = Format(
    "timm",
    sign=r"stages\.\d+\.blocks\..*",
    rules=(
        Rule("downsample_layers.0.{j}.*", "stem.{j}.*"),
        Rule("downsample_layers.{i}.{j}.*", "stages.{i}.downsample.{j}.*"),
        Rule("stages.{i}.{j}.gamma", "stages.{i}.blocks.{j}.gamma"),
        Rule("stages.{i}.{j}.dwconv.*", "stages.{i}.blocks.{j}.conv_dw.*"),
        Rule("stages.{i}.{j}.norm.*", "stages.{i}.blocks.{j}.norm.*"),
        Rule("stages.{i}.{j}.pwconv1.weight", "stages.{i}.blocks.{j}.mlp.fc1.weight", _mlp),
        Rule("stages.{i}.{j}.pwconv1.bias", "stages.{i}.blocks.{j}.mlp.fc1.bias"),
        Rule("stages.{i}.{j}.grn.gamma", "stages.{i}.blocks.{j}.mlp.grn.weight"),
        Rule("stages.{i}.{j}.grn.beta", "stages.{i}.blocks.{j}.mlp.grn.bias"),
        Rule("stages.{i}.{j}.pwconv2.weight", "stages.{i}.blocks.{j}.mlp.fc2.weight", _mlp),
        Rule("stages.{i}.{j}.pwconv2.bias", "stages.{i}.blocks.{j}.mlp.fc2.bias"),
        Rule("norm.*", "head.norm.*"),
        Rule("head.*", "head.fc.*"),
    ),
    parts=(
        Part(
            r"head\.(pre_logits|fc)\..*", "a head of two layers, which the model does not have", r"head\.pre_logits\..*"
        ),
    ),
    fields=_fields,
)


def _flat(name: str) -> str:
    return name.replace("stem.", "stem_").replace("stages.", "stages_")


FEATURES = Format(
    "timm-features",
    sign=r"stages_\d+\.blocks\..*",
    rules=tuple(rule._replace(theirs=_flat(rule.theirs)) for rule in TIMM.rules if not rule.theirs.startswith("head.")),
    fields=_fields,
)

CLIP = Format(
    "open-clip",
    sign=r"(visual\.)?trunk\..*",
    rules=tuple(
        rule._replace(theirs="{trunk}" + rule.theirs) for rule in TIMM.rules if not rule.theirs.startswith("head.fc.")
    ),
    trunks=("visual.trunk.", "trunk."),
    trunk=lambda model, head: "visual.trunk.",
    parts=(
        Part(r"(visual\.)?head\..*", "the projection to the space of texts, which the model does not have"),
        Part(
            r"(text\.|transformer\.|token_embedding\.|ln_final\.|positional_embedding|text_projection|logit_).*",
            "the text tower",
        ),
    ),
    fields=_fields,
)
