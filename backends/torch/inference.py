"""Repeated inference on a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from backends.protocol import BackendError
from backends.torch.api import Net, evaluating
from backends.torch.compilation import compile_steps
from backends.torch.kernels import on_cuda, use_triton


@torch.no_grad()
def record_inference(net: Net, images: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
    """A function of images shaped like these that returns `net(images)`: compiled, and replayed as one CUDA graph.

    images (N, H, W, C) on the net's device; BackendError unless that is CUDA. The net may be in any dtype;
    net.to(torch.bfloat16) is the fastest. Its steps stay compiled. Later
    changes of its parameters count if made in place. Each call overwrites what the previous one returned.
    """
    if not on_cuda(images.device.type):
        raise BackendError(f"images: on {images.device}, and CUDA graphs need a CUDA device; call the module itself")
    compile_steps(net)
    engine = "visible" if use_triton("auto", images.device.type) else "masked"
    read = images.clone()
    graph = torch.cuda.CUDAGraph()
    with evaluating(net):
        net(read, engine=engine)  # compiles
        with torch.cuda.graph(graph):
            out = net(read, engine=engine)

    def replay(images: Tensor) -> dict[str, Tensor]:
        found, recorded = (tuple(images.shape), images.dtype), (tuple(read.shape), read.dtype)
        if found != recorded:
            raise BackendError(f"images: {found} is not {recorded}, which was recorded")
        with torch.no_grad():
            read.copy_(images)
        graph.replay()
        return dict(out)

    return replay
