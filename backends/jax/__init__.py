"""The JAX build of the spec. Reading order: steps, space/, model, trainer."""

from backends.jax.api import build, forward, get_arrays, gradients, set_arrays
from backends.jax.cluster import init_cluster
from backends.jax.compilation import use_compilation_cache
from backends.jax.model import FCMAE, Backbone, Classifier
from backends.jax.space.engines import ENGINES
from backends.jax.trainer import Trainer

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
