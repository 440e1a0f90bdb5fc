"""The PyTorch build of the spec. Reading order: steps, space/, model, trainer."""

from backends.torch.api import build, forward, get_arrays, gradients, set_arrays
from backends.torch.cluster import init_cluster
from backends.torch.compilation import use_compilation_cache
from backends.torch.model import FCMAE, Backbone, Classifier
from backends.torch.space.engines import ENGINES
from backends.torch.trainer import Trainer

__all__ = [
    "ENGINES",
    "FCMAE",
    "Backbone",
    "Classifier",
    "Trainer",
    "build",
    "forward",
    "get_arrays",
    "gradients",
    "init_cluster",
    "set_arrays",
    "use_compilation_cache",
]
