"""What several processes compute together: batch statistics, means, gradients. On any device; alone, nothing is done.

Each process has its share of the batch and a loss of it; the mean of these losses is the loss of the whole batch, and
the mean of their gradients its gradient. DistributedDataParallel would average them too, but it wraps one `forward`,
and methods call parts of several networks; one sum over all gradients is as static, and a graph can hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..pipelines.errors import UsageError
from .processes import is_distributed, rank, world_size


# Ours, as torch.distributed.nn.functional.all_reduce is deprecated and raises under torch.compile, and what torch names
# in its place is private.
class AllReduce(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def gathered(tensor: Tensor) -> Tensor:
    """(N, …) of every process one after the other, (world size * N, …), without gradient; alone, the tensor itself."""
    if not is_distributed():
        return tensor
    by_pixel = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    rows = tensor.detach().permute(0, 2, 3, 1) if by_pixel else tensor.detach().contiguous()
    whole = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    dist.all_gather(list(whole.chunk(world_size())), rows)
    return whole.permute(0, 3, 1, 2) if by_pixel else whole


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, without gradient; alone, the tensor itself."""
    if not is_distributed():
        return tensor
    summed = tensor.detach().clone()
    dist.all_reduce(summed)
    return summed


def average(tensor: Tensor) -> Tensor:
    """The mean over all processes, without gradient; alone, the tensor itself."""
    return total(tensor) / world_size() if is_distributed() else tensor


def of_first(tensor: Tensor) -> Tensor:
    """The first process's tensor, without gradient; alone, the tensor itself."""
    if not is_distributed():
        return tensor
    shared = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(shared, 0)
    return shared


def own_rows(draw: Callable[[int], Tensor], *sizes: int) -> Tensor:
    """Random numbers for the rows of this process, which are groups of so many: `draw(N)` gives those of N rows,
    (N, …), and is asked for all processes' at once, so that they are those that one process would draw."""
    if not is_distributed():
        return draw(sum(sizes))
    everyones = of_first(draw(world_size() * sum(sizes)))
    groups = everyones.split([world_size() * size for size in sizes])
    return torch.cat([group[rank() * size :][:size] for group, size in zip(groups, sizes, strict=True)])


def broadcast_state(module: nn.Module) -> None:
    """Gives all processes the first one's parameters and buffers."""
    if not is_distributed():
        return
    for tensor in module.state_dict().values():
        own = tensor.contiguous()
        dist.broadcast(own, 0)
        tensor.copy_(own)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces gradients by their means over all processes, in one exchange for each dtype. A parameter has a gradient
    on all processes or on none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        these = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in these])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = flat.split([gradient.numel() for gradient in these])
        torch._foreach_copy_(these, [part.view_as(gradient) for part, gradient in zip(parts, these, strict=True)])


class CollectiveBatchNorm2d(nn.SyncBatchNorm):
    """BatchNorm2d whose batch, in training, is that of all processes, each with an equal share.

    (B, C, H, W) -> the same shape. Gradients flow through the statistics to all processes. Every process must call it
    as often as the others. torch's SyncBatchNorm refuses tensors on the CPU; there, the same is computed with
    differentiable collectives, in at least single precision.
    """

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.is_cuda:
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, self.weight.dtype))
        count = wide.new_tensor([wide.numel() // wide.shape[1]])
        sums = torch.cat([wide.sum((0, 2, 3)), count])
        *sums, count = AllReduce.apply(sums).split([wide.shape[1], 1])
        mean = sums[0] / count
        centred = wide - mean[:, None, None]
        # A second reduction: the mean of squares minus the square of the mean would cancel in single precision.
        variance = AllReduce.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronised(network: nn.Module) -> nn.Module:
    """`network` with the statistics of every BatchNorm2d taken over all processes; parameters and buffers are kept.
    Raises UsageError for other batch normalisations."""
    for name, module in network.named_modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CollectiveBatchNorm2d  # type: ignore[assignment]
            module.process_group = None  # type: ignore[assignment]
        elif isinstance(module, _BatchNorm) and not isinstance(module, CollectiveBatchNorm2d):
            raise UsageError(
                f"{name} is a {type(module).__name__}, whose statistics several processes cannot share; take another "
                "--backbone, or BatchNorm2d where it is the method's own, or train in one process"
            )
    return network
