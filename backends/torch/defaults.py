"""What a trainer uses on its device: kernels, compiled steps, CUDA graphs."""

import importlib.util
from typing import NamedTuple

from backends.protocol import BackendError, TrainerOptions
from backends.torch.kernels import use_triton


class Choice(NamedTuple):
    """What `TrainerOptions` leaves open, decided."""

    triton: bool  # whether Triton kernels convolve visible patches
    compile: bool
    graphs: bool
    missing: bool = False  # a GPU's kernels and compiler, since Triton is not installed

    def __str__(self) -> str:
        """With the flag that turns each part off."""
        kernels = "Triton kernels (--kernels plain)" if self.triton else "plain kernels"
        compiled = "compiled steps (--compile False)" if self.compile else "eager steps"
        graphs = ", CUDA graphs (--cuda_graphs False)" if self.graphs else ""
        return f"{kernels}, {compiled}{graphs}" + ("; pip install triton for faster ones" if self.missing else "")


def choose(options: TrainerOptions, device: str, processes: int = 1) -> Choice:
    """What serves fastest on a type of device, where the options leave it open; BackendError for what cannot be.

    On CUDA all of it, where Triton is installed, which torch compiles with too; elsewhere none.
    """
    installed = importlib.util.find_spec("triton") is not None
    fast = device == "cuda" and installed
    if options.kernels == "triton" and options.engine in ("masked", "minkowski"):
        raise BackendError(f"kernels: 'triton' convolve visible patches; engine {options.engine!r} has none of them")
    problems = {
        "compile": _not_compiled(options, processes),
        "graphs": _not_recorded(options, device, processes),
    }
    for name, problem in problems.items():
        if problem and getattr(options, name):
            raise BackendError(f"{name}: {problem}")
    return Choice(
        use_triton(options.kernels, device) and options.engine not in ("masked", "minkowski"),
        (fast if options.compile is None else options.compile) and not problems["compile"],
        (fast if options.graphs is None else options.graphs) and not problems["graphs"],
        device == "cuda" and not installed,
    )


def _not_compiled(options: TrainerOptions, processes: int) -> str | None:
    if options.engine == "minkowski":
        return "engine 'minkowski' goes through no compiler; choose another engine or leave --compile away"
    if options.shard and processes > 1:
        return "the blocks of a sharded model are not compiled; leave --shard or --compile away"
    return None


def _not_recorded(options: TrainerOptions, device: str, processes: int) -> str | None:
    if device != "cuda":
        return f"CUDA graphs do not run on {device}; leave --cuda_graphs away"
    if processes > 1:
        return "several processes exchange gradients between kernels; leave --cuda_graphs away"
    if options.engine == "minkowski":
        return "engine 'minkowski' waits for the device; leave --cuda_graphs away"
    return None
