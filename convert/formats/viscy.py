"""VisCy's masked autoencoder for microscopy: timm's names in part, depthwise convolutions without a bias.

Its stem has a convolution for single planes and one for stacks, and a model uses one of them. The planes of a
stack are the channels of an image here. The stem that a model of stacks does not use is not written.
"""

from dataclasses import replace

from convert.rules import USUAL, Format, Part, Rule

_STACKS = r"(.*\.)?stem\.conv3d\.weight"
_RULES = (
    Rule("downsample_layers.0.1.*", "{trunk}stem.norm.*"),
    Rule("downsample_layers.{i}.{j}.*", "{trunk}stages.{i}.downsample.{j}.*"),
    Rule("stages.{i}.{j}.dwconv.*", "{trunk}stages.{i}.blocks.{j}.dwconv.*"),
    Rule("stages.{i}.{j}.norm.*", "{trunk}stages.{i}.blocks.{j}.layernorm.*"),
    Rule("stages.{i}.{j}.pwconv1.*", "{trunk}stages.{i}.blocks.{j}.mlp.fc1.*"),
    Rule("stages.{i}.{j}.grn.gamma", "{trunk}stages.{i}.blocks.{j}.mlp.grn.weight"),
    Rule("stages.{i}.{j}.grn.beta", "{trunk}stages.{i}.blocks.{j}.mlp.grn.bias"),
    Rule("stages.{i}.{j}.pwconv2.*", "{trunk}stages.{i}.blocks.{j}.mlp.fc2.*"),
)


def _parts(unused: str, what: str) -> tuple[Part, ...]:
    return (
        Part(rf"(.*\.)?stem\.{unused}\..*", what),
        Part(r"(model\.)?(decoder|head)\..*", "VisCy's decoder and head"),
    )


VISCY = Format(
    "viscy",
    sign=_STACKS,
    sign_shape=(None, None, 1, None, None),
    rules=(Rule("downsample_layers.0.0.*", "{trunk}stem.conv2d.*"), *_RULES),
    trunks=("model.encoder.", "encoder.", ""),
    trunk=lambda model, head: "model.encoder.",
    copies=(
        Rule("downsample_layers.0.0.weight", "{trunk}stem.conv3d.weight", "out in 1 kh kw"),
        Rule("downsample_layers.0.0.bias", "{trunk}stem.conv3d.bias"),
    ),
    parts=_parts("conv3d", "the stem for stacks, which a model of single planes does not use"),
    fields=lambda shapes: {"norm_eps": 1e-5},
    computes=USUAL | {"dwconv_bias": False},
    caution="norm_eps of VisCy's downsampling norms is 1e-06: its features differ by a few millionths",
)

STACKS = replace(
    VISCY,
    name="viscy-3d",
    sign_shape=None,
    rules=(
        Rule("downsample_layers.0.0.weight", "{trunk}stem.conv3d.weight", "out 1 in kh kw"),
        Rule("downsample_layers.0.0.bias", "{trunk}stem.conv3d.bias"),
        *_RULES,
    ),
    copies=(),
    parts=_parts("conv2d", "the stem for single planes, which a model of stacks does not use"),
)
