"""What a trainer uses on its device: kernels, compiled steps, CUDA graphs."""

import importlib.util
from typing import NamedTuple

from backends.protocol import BackendError, TrainerOptions
from backends.torch.kernels import on_cuda, use_triton


class Execution(NamedTuple):
    """How a trainer computes: `TrainerOptions` with what they leave open filled in."""

    triton: bool  # whether Triton kernels convolve visible patches
    compile: bool
    graphs: bool
    missing: bool = False  # a GPU's kernels and compiler, since Triton is not installed

    def __str__(self) -> str:
        """What is used, why, and the flags that turn it off."""
        used = {"Triton kernels": self.triton, "compiled steps": self.compile, "CUDA graphs": self.graphs}
        flags = {"--kernels plain": self.triton, "--compile False": self.compile, "--cuda_graphs False": self.graphs}
        names = [name for name, on in used.items() if on] or ["plain kernels", "eager steps"]
        why = ", the fastest on CUDA" if all(used.values()) else ""
        override = f" (override: {', '.join(flag for flag, on in flags.items() if on)})" if any(used.values()) else ""
        return f"{', '.join(names)}{why}{override}" + ("; pip install triton for faster ones" if self.missing else "")


def resolve(options: TrainerOptions, device: str, processes: int = 1) -> Execution:
    """The fastest way to compute on a type of device that the options allow; BackendError for what cannot be.

    On CUDA all of it, where Triton is installed, which torch compiles with too; elsewhere none.
    """
    installed = importlib.util.find_spec("triton") is not None
    fast = on_cuda(device) and installed
    if options.kernels == "triton" and options.engine in ("masked", "minkowski"):
        raise BackendError(f"kernels: 'triton' convolve visible patches; engine {options.engine!r} has none of them")
    problems = {
        "compile": _not_compiled(options, processes),
        "graphs": _not_recorded(options, device, processes),
    }
    for name, problem in problems.items():
        if problem and getattr(options, name):
            raise BackendError(f"{name}: {problem}")
    return Execution(
        use_triton(options.kernels, device) and options.engine not in ("masked", "minkowski"),
        (fast if options.compile is None else options.compile) and not problems["compile"],
        (fast if options.graphs is None else options.graphs) and not problems["graphs"],
        on_cuda(device) and not installed,
    )


def _not_compiled(options: TrainerOptions, processes: int) -> str | None:
    if options.engine == "minkowski":
        return "engine 'minkowski' goes through no compiler; choose another engine or leave --compile away"
    if options.shard and processes > 1:
        return "the blocks of a sharded model are not compiled; leave --shard or --compile away"
    return None


def _not_recorded(options: TrainerOptions, device: str, processes: int) -> str | None:
    if not on_cuda(device):
        return f"CUDA graphs do not run on {'ROCm' if device == 'cuda' else device}; leave --cuda_graphs away"
    if processes > 1:
        return "several processes exchange gradients between kernels; leave --cuda_graphs away"
    if options.engine == "minkowski":
        return "engine 'minkowski' waits for the device; leave --cuda_graphs away"
    return None
