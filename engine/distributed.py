"""What several processes share: batch statistics and features. On any device.

torch's SyncBatchNorm refuses tensors on the CPU; there, the same is computed with differentiable collectives.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


def several() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def gathered(tensor: Tensor) -> Tensor:
    """(N, …) of every process one after the other, (world size * N, …), without gradient; alone, the tensor itself."""
    if not several():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


class CollectiveBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch, in training, is that of all processes, each with an equal share.

    (B, C, H, W) -> the same shape. Gradients flow through the statistics to all processes, as in SyncBatchNorm. Every
    process must call it as often as the others.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count = input.new_tensor([input.numel() // input.shape[1]])
        sums = torch.cat([input.sum((0, 2, 3)), count])
        *total, count = AllReduce.apply(sums).split([input.shape[1], 1])
        mean = total[0] / count
        centred = input - mean[:, None, None]
        # A second reduction: the mean of squares minus the square of the mean would cancel in single precision.
        variance = AllReduce.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synchronised(network: nn.Module) -> nn.Module:
    """`network` with the statistics of every BatchNorm2d taken over all processes; parameters and buffers are kept."""
    if next(network.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CollectiveBatchNorm2d
    return network
