"""mmpretrain: an ImageClassifier of a backbone, whose last norm is numbered like its stage, and a linear head."""

from convert.rules import Format, Rule

MMPRETRAIN = Format(
    "mmpretrain",
    sign=r".*\.depthwise_conv\..*",
    rules=(
        Rule("downsample_layers.{i}.{j}.*", "{trunk}downsample_layers.{i}.{j}.*"),
        Rule("stages.{i}.{j}.gamma", "{trunk}stages.{i}.{j}.gamma"),
        Rule("stages.{i}.{j}.dwconv.*", "{trunk}stages.{i}.{j}.depthwise_conv.*"),
        Rule("stages.{i}.{j}.norm.*", "{trunk}stages.{i}.{j}.norm.*"),
        Rule("stages.{i}.{j}.pwconv1.*", "{trunk}stages.{i}.{j}.pointwise_conv1.*"),
        Rule("stages.{i}.{j}.pwconv2.*", "{trunk}stages.{i}.{j}.pointwise_conv2.*"),
        Rule("stages.{i}.{j}.grn.gamma", "{trunk}stages.{i}.{j}.grn.gamma"),
        Rule("stages.{i}.{j}.grn.beta", "{trunk}stages.{i}.{j}.grn.beta"),
        Rule("norm.*", "{trunk}norm{last}.*"),
        Rule("head.*", "head.fc.*"),
    ),
    trunks=("backbone.", ""),
    trunk=lambda model, head: "backbone.",
)
