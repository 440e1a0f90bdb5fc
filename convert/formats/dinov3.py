"""DINOv3's ConvNeXt V1: its release, in the published names, and transformers'. EUPE's release has the same names."""

from convert.formats.official import ENCODER
from convert.rules import Format, Part, Rule

DINOV3 = Format(
    "dinov3",
    sign=r"norms\.\d+\.weight",
    rules=(*ENCODER, Rule("norm.*", "norm.*")),
    copies=(Rule("norm.*", "norms.{last}.*"),),
    parts=(Part(r"(norms|projectors)\..*", "norms and projectors for training, which the model does not have"),),
)

HF = Format(
    "dinov3-hf",
    sign=r"(model\.)?stages\.\d+\.layers\..*",
    rules=(
        Rule("downsample_layers.{i}.{j}.*", "{trunk}stages.{i}.downsample_layers.{j}.*"),
        Rule("stages.{i}.{j}.gamma", "{trunk}stages.{i}.layers.{j}.gamma"),
        Rule("stages.{i}.{j}.dwconv.*", "{trunk}stages.{i}.layers.{j}.depthwise_conv.*"),
        Rule("stages.{i}.{j}.norm.*", "{trunk}stages.{i}.layers.{j}.layer_norm.*"),
        Rule("stages.{i}.{j}.pwconv1.*", "{trunk}stages.{i}.layers.{j}.pointwise_conv1.*"),
        Rule("stages.{i}.{j}.pwconv2.*", "{trunk}stages.{i}.layers.{j}.pointwise_conv2.*"),
        Rule("norm.*", "layer_norm.*"),
    ),
    trunks=("", "model."),
)
