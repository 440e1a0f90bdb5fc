"""One model on several devices: a copy on each (DDP), or its arrays split over all of them (FSDP2)."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backends.torch import api
from backends.torch.steps import Residual


def spread(net: nn.Module, processes: int, shard: bool) -> nn.Module:
    """What to call in training in place of the net, so that its gradients are means over all processes.

    shard: the net's parameters are replaced by this process's parts of them, and each block's are
    gathered while it computes. Otherwise gradients live in the buckets in which they are averaged.
    """
    if processes == 1:
        return net
    if not shard:
        return DistributedDataParallel(net, gradient_as_bucket_view=True)
    _shard(net, processes)
    return net


def _shard(net: nn.Module, processes: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh  # a second for all of this
    from torch.distributed.fsdp import FSDPModule, fully_shard

    device = next(net.parameters()).device.type
    mesh = init_device_mesh(device, (processes,))
    for block in [module for module in net.modules() if isinstance(module, Residual)]:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh, reshard_after_forward=True)  # or an evaluation would leave the net gathered
    assert isinstance(net, FSDPModule)
    net.set_force_sum_reduction_for_comms(device == "cpu")  # gloo has no mean
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nobody changes in place


def accumulating(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Where a micro-batch's gradients are added to those before: copies exchange them with the last one only."""
    return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()


def mean(value: Tensor, processes: int) -> Tensor:
    """The mean of everybody's value."""
    if processes > 1:
        dist.all_reduce(value)
        value /= processes
    return value


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which this may be a part: for all processes to call."""
    return tensor.full_tensor() if _is_part(tensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this device."""
    return tensor.to_local() if _is_part(tensor) else tensor


def _is_part(tensor: Any) -> TypeGuard[Any]:
    """Whether this is a DTensor, without importing that."""
    return hasattr(tensor, "to_local")


@torch.no_grad()
def fill(tensor: Tensor, array: np.ndarray) -> Tensor:
    """The tensor, or this device's part of it, overwritten from a whole array on the host."""
    value = api.from_host(array)
    if _is_part(tensor):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(tensor.device, tensor.dtype)
        value = part(distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None))
    part(tensor).copy_(value)
    return tensor


@contextmanager
def exchanged(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Meanwhile, tensors have the values of the others of the same name, and those have theirs."""
    _exchange(tensors, others)
    try:
        yield
    finally:
        _exchange(tensors, others)


@torch.no_grad()
def _exchange(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    for name, other in others.items():
        one, two = part(tensors[name]), part(other)
        kept = one.clone()
        one.copy_(two)
        two.copy_(kept)
