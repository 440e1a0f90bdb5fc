"""Where the time of a step goes on a GPU: by kernel, and by kind of kernel."""

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Kernels = dict[str, tuple[float, int]]
"""Name of a kernel -> milliseconds and launches, both of one step."""

KINDS = {
    "depthwise convolutions": r"conv_kernel|gradient_kernel|conv2d|[dw]grad|depthwise|convolv",
    "matrix products": r"nvjet|gemm|cutlass|cublas|splitK|dot",
    "optimizer": r"multi_tensor_apply",
    "copies": r"Memcpy|Memset|memcpy|memset|MemcpyD2D|copy_kernel",
}
"""A kind of kernel -> a pattern of names; the first that fits."""

OTHER = "elementwise and reductions"


def of(backend: str, run: Callable[[], object]) -> Kernels:
    """The kernels of one step on the GPU; none on a CPU."""
    return _jax(run) if backend == "jax" else _torch(run)


def by_kind(kernels: Mapping[str, tuple[float, int]]) -> dict[str, tuple[float, int]]:
    """Milliseconds and launches of each kind of kernel, longest first."""
    found: dict[str, tuple[float, int]] = {}
    for name, (ms, launches) in kernels.items():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), OTHER)
        before = found.get(kind, (0.0, 0))
        found[kind] = before[0] + ms, before[1] + launches
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _torch(run: Callable[[], object]) -> Kernels:
    import torch
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    rows = [row for row in seen.key_averages() if row.device_type == cuda]
    return {row.key: (row.self_device_time_total / 1e3, row.count) for row in rows}


def _jax(run: Callable[[], object]) -> Kernels:
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        data: Any = jax.profiler.ProfileData.from_file(str(file))
        found: Kernels = {}
        for plane in data.planes:
            if plane.name.startswith("/device:GPU"):
                for line in (line for line in plane.lines if line.name.startswith("Stream")):
                    for event in line.events:
                        ms, launches = found.get(event.name, (0.0, 0))
                        found[event.name] = ms + event.duration_ns / 1e6, launches + 1
    return found
