"""ConvNeXt V2 and FCMAE from one declarative spec, in PyTorch and JAX: the names that users need.

>>> import twinnext as tn
>>> model = tn.fcmae("convnextv2_atto", image_size=128)
>>> tn.visible_patches(model), tn.count(model)
(6, 7257992)
>>> module = tn.build(model, backend="jax", seed=0)
>>> type(module).__name__
'FCMAE'

Feature maps for dense tasks, of any model's encoder; images are channels-last, a mask may hide patches of them:

>>> import torch
>>> backbone = tn.build(tn.encoder(depths=(1, 1), dims=(8, 16)), backend="torch")
>>> [tuple(found.shape) for found in backbone.features(torch.zeros(1, 16, 24, 3), layout="NCHW")]
[(1, 8, 4, 6), (1, 16, 2, 3)]
>>> backbone.feature_info([1])
(FeatureInfo(stage=1, channels=16, stride=8),)

`tn.load(path)` reads a checkpoint of any known format, also from the hub by `hf:OWNER/NAME`, and
`tn.build(tn.load(path))` makes a module of it. The packages behind these names: `spec`, `backends`, `convert`, `train`.
"""

from backends import load as backend
from backends.protocol import BackendError
from convert import Checkpoint, ConvertError, build, load, save
from spec import (
    FCMAE,
    PRESETS,
    Backbone,
    Classifier,
    Model,
    Optimizer,
    SpecError,
    classifier,
    count,
    encoder,
    fcmae,
    macs,
    parameters,
    visible_patches,
)
from train.errors import TrainError

__version__ = "0.1.0"

__all__ = [
    "FCMAE",
    "PRESETS",
    "Backbone",
    "BackendError",
    "Checkpoint",
    "Classifier",
    "ConvertError",
    "Model",
    "Optimizer",
    "SpecError",
    "TrainError",
    "__version__",
    "backend",
    "build",
    "classifier",
    "count",
    "encoder",
    "fcmae",
    "load",
    "macs",
    "parameters",
    "save",
    "visible_patches",
]
