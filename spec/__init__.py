"""One declarative architecture of ConvNeXt V2 and FCMAE. Standard library only.

Read `model.py` first, then `steps.py` for the law of each step.
"""

from spec.cost import macs, step_macs, step_sites, visible_patches
from spec.errors import SpecError
from spec.geometry import count_visible, patch_sites
from spec.model import EPS, FCMAE, Classifier, Encoder, Model, classifier, fcmae
from spec.parameters import Param, count, num_layers, parameters
from spec.presets import PRESETS
from spec.steps import (
    GRN,
    Array,
    Dense,
    DepthwiseConv,
    FillRemoved,
    Gelu,
    GlobalPool,
    LayerNorm,
    Named,
    PatchConv,
    Residual,
    Step,
)

__all__ = [
    "EPS",
    "FCMAE",
    "GRN",
    "PRESETS",
    "Array",
    "Classifier",
    "Dense",
    "DepthwiseConv",
    "Encoder",
    "FillRemoved",
    "Gelu",
    "GlobalPool",
    "LayerNorm",
    "Model",
    "Named",
    "Param",
    "PatchConv",
    "Residual",
    "SpecError",
    "Step",
    "classifier",
    "count",
    "count_visible",
    "fcmae",
    "macs",
    "num_layers",
    "parameters",
    "patch_sites",
    "step_macs",
    "step_sites",
    "visible_patches",
]
