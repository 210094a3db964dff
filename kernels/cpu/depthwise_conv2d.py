"""Gradients of a depthwise convolution of stride 1 as depthwise convolutions, of which the CPU has generated code."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gradient_of_input(upstream: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
    """(B, C, H, W): the upstream gradient convolved with the kernel turned by half."""
    channels, _, taps, _ = weight.shape
    rest = [dilation * (taps - 1) - pad for pad in padding]
    return F.conv2d(upstream, weight.flip(2, 3), None, 1, rest, dilation, groups=channels)


def gradient_of_weight(upstream: Tensor, x: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
    """(C, 1, k, k): each channel of each image convolved with its upstream gradient, in strides of the dilation."""
    batch, channels, height, width = x.shape
    maps = x.reshape(1, batch * channels, height, width)
    kernels = upstream.reshape(batch * channels, 1, *upstream.shape[2:])
    products = F.conv2d(maps, kernels, None, dilation, padding, groups=batch * channels)
    return products.view(batch, channels, 1, *products.shape[2:]).sum(0)
