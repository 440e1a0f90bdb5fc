"""VisCy's masked autoencoder for microscopy: timm's names in part, depthwise convolutions without a bias.

Its stem has a convolution for single planes, which is the model's, and one for stacks of planes.
"""

from convert.rules import Format, Part, Rule

VISCY = Format(
    "viscy",
    sign=r"(.*\.)?stages\.\d+\.blocks\.\d+\.layernorm\..*",
    rules=(
        Rule("downsample_layers.0.0.*", "{trunk}stem.conv2d.*"),
        Rule("downsample_layers.0.1.*", "{trunk}stem.norm.*"),
        Rule("downsample_layers.{i}.{j}.*", "{trunk}stages.{i}.downsample.{j}.*"),
        Rule("stages.{i}.{j}.dwconv.*", "{trunk}stages.{i}.blocks.{j}.dwconv.*"),
        Rule("stages.{i}.{j}.norm.*", "{trunk}stages.{i}.blocks.{j}.layernorm.*"),
        Rule("stages.{i}.{j}.pwconv1.*", "{trunk}stages.{i}.blocks.{j}.mlp.fc1.*"),
        Rule("stages.{i}.{j}.grn.gamma", "{trunk}stages.{i}.blocks.{j}.mlp.grn.weight"),
        Rule("stages.{i}.{j}.grn.beta", "{trunk}stages.{i}.blocks.{j}.mlp.grn.bias"),
        Rule("stages.{i}.{j}.pwconv2.*", "{trunk}stages.{i}.blocks.{j}.mlp.fc2.*"),
    ),
    trunks=("model.encoder.", "encoder.", ""),
    trunk=lambda model, head: "model.encoder.",
    copies=(
        Rule("downsample_layers.0.0.weight", "{trunk}stem.conv3d.weight", "out in 1 kh kw"),
        Rule("downsample_layers.0.0.bias", "{trunk}stem.conv3d.bias"),
    ),
    parts=(
        Part(r"(.*\.)?stem\.conv3d\..*", "the stem for stacks of planes; that for single planes is read"),
        Part(r"(model\.)?(decoder|head)\..*", "VisCy's decoder and head"),
    ),
    fields=lambda shapes: {"norm_eps": 1e-5},
)
