"""Gradients of a depthwise convolution as depthwise convolutions, of which the CPU has generated code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_of_input(
    upstream: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int
) -> Tensor:
    """(B, C, H, W), by torch where the padding reaches over the kernel or a stride leaves positions out."""
    channels, _, taps, _ = weight.shape
    rest = [dilation * (taps - 1) - pad for pad in padding]
    if stride > 1 or min(rest) < 0:
        form = [stride] * 2, padding, [dilation] * 2, False, [0, 0], channels
        return torch.ops.aten.convolution_backward(upstream, x, weight, None, *form, [True, False, False])[0]
    return F.conv2d(upstream, weight.flip(2, 3), None, 1, rest, dilation, groups=channels)


def gradient_of_weight(
    upstream: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int
) -> Tensor:
    """(C, 1, k, k): each channel of each image is convolved with its upstream gradient."""
    batch, channels, height, width = x.shape
    taps = weight.shape[-1]
    maps = x.reshape(1, batch * channels, height, width)
    kernels = upstream.reshape(batch * channels, 1, *upstream.shape[2:])
    products = F.conv2d(maps, kernels, None, dilation, padding, stride, groups=batch * channels)
    # A stride leaves rows at the end of the input that no output has seen; here they are one tap more.
    products = products[..., :taps, :taps].reshape(batch, channels, taps, taps)
    return products.sum(0)[:, None]
