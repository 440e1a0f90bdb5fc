"""Our own format: the spec's names and layouts."""

from convert.rules import Format, Rule, encoder_of_fcmae

_BLOCK = ("dwconv.*", "norm.*", "pwconv1.*", "grn.gamma", "grn.beta", "pwconv2.*", "gamma")

OURS = Format(
    "ours",
    sign=r"(.*\.)?stages\.0\.0\.grn\.gamma|mask_token",
    sign_shape=(None,),  # four axes in the published code, whose V1 is written the same, but for the mask token
    rules=(
        Rule("downsample_layers.{i}.{j}.*", "{trunk}downsample_layers.{i}.{j}.*"),
        *(Rule(f"stages.{{i}}.{{j}}.{leaf}", f"{{trunk}}stages.{{i}}.{{j}}.{leaf}") for leaf in _BLOCK),
        *(Rule(name, name) for name in ("norm.*", "head.*", "proj.*", "mask_token")),
        *(Rule(f"decoder.{{j}}.{leaf}", f"decoder.{{j}}.{leaf}") for leaf in _BLOCK),
        Rule("pred.*", "pred.*"),
        Rule("norm{i}.*", "norm{i}.*"),
    ),
    trunks=("", "encoder."),
    trunk=encoder_of_fcmae,
    computes={},
)
