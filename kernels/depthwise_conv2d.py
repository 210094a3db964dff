"""A convolution of each channel by itself, whose gradients cost what its values do, on the CPU.

With taps i, j of a (k, k) kernel, a stride s, a dilation d and a padding p, channel by channel,

    out[y, x] = sum_{i, j} w[i, j] in[s y + d i - p, s x + d j - p]

For s = 1 the gradient of the input is such a convolution too, of the upstream gradient with the kernel turned by half:

    d in[y, x] = sum_{i, j} w[k-1-i, k-1-j] up[y + d i - (d (k-1) - p), x + d j - (d (k-1) - p)]

and the gradient of the kernel is one for any stride, with the upstream gradient in the place of the kernel, and stride
and dilation in each other's:

    d w[i, j] = sum_{images} sum_{y, x} up[y, x] in[d i + s y - p, d j + s x - p]

All three take 2 B C k^2 H W FLOPs for (B, C, H, W) outputs, and oneDNN has generated code for the values alone wherever
a kernel is dilated or, without AVX-512, larger than 3x3; the gradients of these are loops that are not vectorised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, check_tensor
from .cpu import depthwise_conv2d as cpu


def depthwise_conv2d(
    x: Tensor, weight: Tensor, *, stride: int = 1, padding: int | tuple[int, int] = 0, dilation: int = 1
) -> Tensor:
    """`conv2d(x, weight, None, stride, padding, dilation, groups=C)`.

    x: (B, C, H, W) float; weight: (C, 1, k, k) of the same dtype, both cast under autocast. padding: zeros on either
    side, of both axes or (vertical, horizontal). Returns (B, C, H', W'); gradients flow to both. Off the CPU, in
    float64, and of kernels up to 3x3 without dilation, torch's own.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("x", x, (None, None, None, None), FLOATS)
    check_tensor("weight", weight, (x.shape[1], 1, None, None), FLOATS, x.device)
    if weight.shape[-2] != weight.shape[-1]:
        raise ValueError(f"weight must have a square kernel, not {tuple(weight.shape[-2:])}")
    pads = (padding, padding) if isinstance(padding, int) else tuple(padding)
    if stride < 1 or dilation < 1 or len(pads) != 2 or min(pads) < 0:
        raise ValueError(f"no convolution has stride {stride}, padding {padding} and dilation {dilation}")
    reach = dilation * (weight.shape[-1] - 1)
    if any(side + 2 * pad <= reach for side, pad in zip(x.shape[2:], pads)):
        raise ValueError(f"weight reaches over {reach + 1} pixels, more than x has with its padding")
    quick = weight.shape[-1] <= 3 and dilation == 1
    if quick or not x.numel() or _dispatch.provider(x, "depthwise_conv2d") != "cpu":
        return reference.depthwise_conv2d(x, weight, stride=stride, padding=pads, dilation=dilation)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    return _DepthwiseConv2d.apply(x, weight, stride, pads, dilation)


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.form = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = cpu.gradient_of_input(upstream, x, weight, *ctx.form) if ctx.needs_input_grad[0] else None
        of_weight = cpu.gradient_of_weight(upstream, x, weight, *ctx.form) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None, None
