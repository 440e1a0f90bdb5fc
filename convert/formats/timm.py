"""timm: stem, stages with their own downsampling, and a head of pool, norm, fc; and its models of features only."""

from convert.rules import Format, Rule
from spec import Model

CONV_MLP = [f"{family}_{size}" for family in ("convnext", "convnextv2") for size in ("atto", "femto", "pico", "nano")]
"""The sizes whose linear layers timm builds as 1x1 convolutions."""


def _mlp(model: Model) -> str:
    return "out in 1 1" if model.encoder.preset in CONV_MLP else "out in"


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
)


def _flat(name: str) -> str:
    return name.replace("stem.", "stem_").replace("stages.", "stages_")


FEATURES = Format(
    "timm-features",
    sign=r"stages_\d+\.blocks\..*",
    rules=tuple(rule._replace(theirs=_flat(rule.theirs)) for rule in TIMM.rules if not rule.theirs.startswith("head.")),
)
