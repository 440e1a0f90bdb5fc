"""The interface of both backends: public functions and trainer, in numpy and plain Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict

import numpy as np

from spec import Model
from spec import Optimizer as Optimizer

Arrays = dict[str, np.ndarray]
"""Canonical name -> array in canonical layout (see `spec.parameters`)."""

Engine = str
"""How space is stored: "masked", "visible", or where it is installed "minkowski"."""

Dtype = Literal["float32", "bfloat16", "float64"]
"""What a model computes in. Parameters are float64 for "float64" and float32 otherwise."""

ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The relative error of rounding to a dtype, from which bounds of parity checks are derived."""


class BackendError(ValueError):
    """One line about an input that no backend can serve: what, where, and what to do."""


class Batch(TypedDict, total=False):
    """One (micro-)batch, with every random decision in it. Leading axis N everywhere."""

    images: np.ndarray  # N H W C, uint8 (normalised on the device) or float (taken as it is)
    mask: np.ndarray  # N G_h G_w uint8, 1 = removed; the same number of visible patches per image
    targets: np.ndarray  # N classes float32: soft labels, mixup and smoothing included
    weights: np.ndarray  # N float: factor on each image's loss (pre-training); 1 where absent, 0 on padding rows
    labels: np.ndarray  # N int32: true classes, -1 on padding rows (evaluation)
    keep_paths: np.ndarray  # N blocks uint8, 1 = keep: needed in training where the model has drop_path


@dataclass(frozen=True)
class TrainerOptions:
    """How a trainer computes; model and optimizer define what it computes."""

    seed: int = 0  # of the first parameters
    dtype: Dtype = "float32"
    engine: Engine | None = None  # None: "visible" where every image keeps the same number of patches
    mean: tuple[float, ...] = (0.0,)  # normalises uint8 images, in units of 0..1: one per channel, or one for all
    std: tuple[float, ...] = (1.0,)
    device: str | None = None  # None: the best one available; not used in a cluster of several processes
    kernels: str = "auto"  # of engine "visible": "plain", "triton" (torch), "pallas" (jax); "auto": by the device
    shard: bool = False  # split parameters, moments and EMA over the devices of the cluster
    remat: bool = False  # recompute the activations inside a block in the backward pass; the update is the same
    compile: bool | None = None  # torch only: compile the steps of the model; None: on CUDA. JAX always compiles
    graphs: bool | None = None  # torch only: replay gradients as CUDA graphs; None: on one CUDA device


DEFAULTS = TrainerOptions()


@dataclass
class State:
    """Everything that an update reads and writes, framework-neutral."""

    params: Arrays
    mu: Arrays = field(default_factory=dict)  # first moments
    nu: Arrays = field(default_factory=dict)  # second moments
    ema: Arrays = field(default_factory=dict)
    t: int = 0  # updates made

    @classmethod
    def initial(cls, params: Arrays, ema: Arrays | None = None) -> "State":
        """The state before the first update: zero moments; the EMA is a copy of the parameters unless given."""

        def zeros() -> Arrays:
            return {name: np.zeros_like(array) for name, array in params.items()}

        return cls(params, zeros(), zeros(), {name: a.copy() for name, a in params.items()} if ema is None else ema)


class Cluster(Protocol):
    """The processes that train one model, each with the same number of devices; usually one with one.

    Every method is collective: all processes call it, in the same order.
    """

    @property
    def rank(self) -> int:
        """The number of this process, from 0. Process 0 logs and saves."""

    @property
    def processes(self) -> int: ...

    @property
    def devices(self) -> int:
        """Devices of each process."""

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of the values over all processes, in float64."""

    def shutdown(self) -> None:
        """Leave the process group; last call of a successful run."""


class Trainer(Protocol):
    """A training step as a pure function of (state, batch): equal in both frameworks.

    The loss is the model's own: FCMAE's masked error, or soft cross-entropy for a classifier. A model
    without a head can be evaluated, not trained.
    In a cluster each process passes the rows of its own devices, the same number each; every method
    is collective, and losses, gradients and states are over all rows.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        options: TrainerOptions = DEFAULTS,
        *,
        cluster: Cluster | None = None,
    ) -> None: ...

    @property
    def execution(self) -> object:
        """How it computes, its options and what they leave open: as text, with the flags that change it."""

    def step(self, batches: Sequence[Batch], lr: float) -> Mapping[str, Any]:
        """One update from the mean gradient of the micro-batches: {"loss", "grad_norm"}, 0-d.

        The values may still be computing on the device: float() waits for them.
        """

    def evaluate(self, batch: Batch, *, ema: bool = False) -> dict[str, np.ndarray]:
        """The public `forward` on a training batch, with the parameters or their EMA."""

    def export(self) -> State | None:
        """A copy of the state on the host of process 0, None elsewhere; later steps do not change it."""

    def restore(self, state: State) -> None:
        """Take over a state, of either framework; strict about names and shapes."""


class Backend(Protocol):
    """The public functions of `backends.torch` and `backends.jax`."""

    ENGINES: tuple[Engine, ...]
    Trainer: type[Trainer]

    def init_cluster(self, device: str | None = None) -> Cluster:
        """Join the processes that the environment describes, if there are several; BackendError if that fails."""

    def use_compilation_cache(self, where: str = "") -> str:
        """Keep compiled programs in a folder, or nowhere if `where` is "off"; return a line for the log, or "".

        Default: the framework's own variable if set, else a folder of the framework's or the user's. BackendError if
        the folder that is asked for cannot be written.
        """

    def build(self, model: Model, *, seed: int = 0, dtype: Dtype = "float32", device: str | None = None) -> Any:
        """A real torch.nn.Module or flax.nnx.Module with fresh parameters drawn from `seed`."""

    def get_arrays(self, m: Any) -> Arrays:
        """The parameters, in model order, as copies on the host."""

    def set_arrays(self, m: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Overwrite the parameters; BackendError lists missing, unknown and misshapen names."""

    def forward(
        self,
        m: Any,
        images: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        engine: Engine | None = None,
        kernels: str = "auto",
        intermediates: bool = False,
    ) -> dict[str, np.ndarray]:
        """Evaluate. images (N, H, W, C); mask (N, G_h, G_w), 1 = removed.

        FCMAE: `encoded` (N, G_h, G_w, C3), 0 at removed sites; `prediction` (N, G_h, G_w,
        patch * patch * chans); `loss` (), NaN when nothing is removed. Classifier:
        `features` (N, C3), `logits` (N, classes) if it has a head. Backbone: `stage0`, `stage1`, ...,
        the feature map of each stage, (N, H / stride, W / stride, C), 0 at removed sites.
        intermediates=True adds every step's output under its path, on the full grid, 0 at removed sites.
        """

    def gradients(
        self, m: Any, images: np.ndarray, mask: np.ndarray, *, engine: Engine | None = None, kernels: str = "auto"
    ) -> Arrays:
        """Gradients of the FCMAE loss, in canonical names and layouts."""
