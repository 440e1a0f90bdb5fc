"""One declarative architecture of ConvNeXt V1, ConvNeXt V2 and FCMAE. Standard library only.

Read `model.py` first, then `steps.py` for the definition of each step and `training.py` for the losses and AdamW.
"""

from spec.constructors import classifier, encoder, fcmae
from spec.cost import macs, step_macs, step_sites, visible_patches
from spec.errors import SpecError
from spec.geometry import Rounding, count_visible, patch_sites, ratio_for
from spec.model import EPS, FCMAE, Backbone, Classifier, Encoder, FeatureInfo, Model, modules, stage_names
from spec.parameters import LayerIds, Param, count, num_layers, parameters
from spec.presets import PRESETS
from spec.steps import (
    GRN,
    Array,
    Dense,
    DepthwiseConv,
    Draw,
    FillRemoved,
    Gelu,
    GlobalPool,
    LayerNorm,
    LayerScale,
    Named,
    PatchConv,
    Residual,
    Step,
)
from spec.training import CLIP_EPS, CrossEntropy, Loss, MaskedError, Optimizer, loss

__all__ = [
    "CLIP_EPS",
    "EPS",
    "FCMAE",
    "GRN",
    "PRESETS",
    "Array",
    "Backbone",
    "Classifier",
    "CrossEntropy",
    "Dense",
    "DepthwiseConv",
    "Draw",
    "Encoder",
    "FeatureInfo",
    "FillRemoved",
    "Gelu",
    "GlobalPool",
    "LayerIds",
    "LayerNorm",
    "LayerScale",
    "Loss",
    "MaskedError",
    "Model",
    "Named",
    "Optimizer",
    "Param",
    "PatchConv",
    "Residual",
    "Rounding",
    "SpecError",
    "Step",
    "classifier",
    "count",
    "count_visible",
    "encoder",
    "fcmae",
    "loss",
    "macs",
    "modules",
    "num_layers",
    "parameters",
    "patch_sites",
    "ratio_for",
    "stage_names",
    "step_macs",
    "step_sites",
    "visible_patches",
]
