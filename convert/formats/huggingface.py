"""Hugging Face transformers: ConvNext and ConvNextV2, each ForImageClassification, a Backbone, or a bare Model."""

from convert.rules import Format, Rule

FAMILIES = {"v1": "convnext", "v2": "convnextv2"}
"""Kind of block -> transformers' model_type, which begins the names of a classifier's encoder."""

DINOV3 = "dinov3_convnext"

STAGES = 8  # of a backbone, at most: transformers counts them from 1

HF = Format(
    "hf",
    sign=r"convnext(v2)?\..*|encoder\.stages\.\d+\.layers\..*",
    rules=(
        Rule("downsample_layers.0.0.*", "{trunk}embeddings.patch_embeddings.*"),
        Rule("downsample_layers.0.1.*", "{trunk}embeddings.layernorm.*"),
        Rule("downsample_layers.{i}.{j}.*", "{trunk}encoder.stages.{i}.downsampling_layer.{j}.*"),
        Rule("stages.{i}.{j}.gamma", "{trunk}encoder.stages.{i}.layers.{j}.layer_scale_parameter"),
        Rule("stages.{i}.{j}.dwconv.*", "{trunk}encoder.stages.{i}.layers.{j}.dwconv.*"),
        Rule("stages.{i}.{j}.norm.*", "{trunk}encoder.stages.{i}.layers.{j}.layernorm.*"),
        Rule("stages.{i}.{j}.pwconv1.*", "{trunk}encoder.stages.{i}.layers.{j}.pwconv1.*"),
        Rule("stages.{i}.{j}.grn.gamma", "{trunk}encoder.stages.{i}.layers.{j}.grn.weight", "1 1 1 ch"),
        Rule("stages.{i}.{j}.grn.beta", "{trunk}encoder.stages.{i}.layers.{j}.grn.bias", "1 1 1 ch"),
        Rule("stages.{i}.{j}.pwconv2.*", "{trunk}encoder.stages.{i}.layers.{j}.pwconv2.*"),
        Rule("norm.*", "{trunk}layernorm.*"),
        Rule("head.*", "classifier.*"),
        *(Rule(f"norm{stage}.*", f"hidden_states_norms.stage{stage + 1}.*") for stage in range(STAGES)),
    ),
    trunks=("", *(f"{family}." for family in FAMILIES.values())),
    trunk=lambda model, head: f"{FAMILIES[model.encoder.block]}." if head else "",
)
