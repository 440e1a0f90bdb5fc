"""The PyTorch build of the spec. Reading order: steps, sites/, build, fcmae, trainer."""

from backends.torch.cluster import join
from backends.torch.door import build, forward, get_arrays, gradients, set_arrays
from backends.torch.fcmae import FCMAE, Classifier
from backends.torch.sites import ENGINES
from backends.torch.trainer import Trainer

__all__ = [
    "ENGINES",
    "FCMAE",
    "Classifier",
    "Trainer",
    "build",
    "forward",
    "get_arrays",
    "gradients",
    "join",
    "set_arrays",
]
