"""A convolution of each channel by itself, whose gradients are such convolutions, on the CPU.

With taps i, j of a (k, k) kernel, a dilation d and a padding p, channel by channel,

    out[y, x] = sum_{i, j} w[i, j] in[y + d i - p, x + d j - p]

The gradient of the input is the upstream gradient convolved with the kernel turned by half:

    d in[y, x] = sum_{i, j} w[k-1-i, k-1-j] up[y + d i - (d (k-1) - p), x + d j - (d (k-1) - p)]

and the gradient of the kernel has the upstream gradient in its place and a stride in the place of the dilation:

    d w[i, j] = sum_{images} sum_{y, x} up[y, x] in[d i + y - p, d j + x - p]

All three take 2 B C k^2 H W FLOPs for (B, C, H, W) outputs. On a processor with AVX2, torch's gradients of kernels
that are dilated or larger than 3x3 take up to twenty times what the values do. Not measured with AVX-512.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _dispatch, reference
from ._arguments import check_integer, check_maps, check_tensor, dtypes_beside
from .cpu import depthwise_conv2d as cpu

POSITIONS = 64 * 64
"""Maps of this size or larger go to torch: one float32 sum over so many loses more digits than its gradients do."""


def depthwise_conv2d(
    x: Tensor, weight: Tensor, *, stride: int = 1, padding: int | tuple[int, int] = 0, dilation: int = 1
) -> Tensor:
    """`conv2d(x, weight, None, stride, padding, dilation, groups=C)`.

    x: (B, C, H, W) float; weight: (C, 1, k, k) of the same dtype, or of any that autocast casts with it. padding: zeros
    on either side, of both axes or (vertical, horizontal). Returns (B, C, H', W'); gradients flow to both. They are
    torch's own off the CPU, in float64, with strides, for kernels up to 3x3 without dilation and maps from 64x64 on.
    Raises TypeError or ValueError naming the argument.
    """
    check_maps("x", x)
    check_tensor("weight", weight, (x.shape[1], 1, None, None), dtypes_beside(x), x.device)
    taps = weight.shape[-1]
    if weight.shape[-2] != taps or taps == 0:
        raise ValueError(f"weight must have a square kernel, not {tuple(weight.shape[-2:])}")
    pads = tuple(padding) if isinstance(padding, (tuple, list)) else (padding, padding)
    for name, values in (("stride", (stride,)), ("each side of padding", pads), ("dilation", (dilation,))):
        for value in values:
            check_integer(name, value)
    if stride < 1 or dilation < 1 or len(pads) != 2 or min(pads) < 0:
        raise ValueError(f"no convolution has stride {stride}, padding {padding} and dilation {dilation}")
    reach = dilation * (taps - 1)
    if any(side + 2 * pad <= reach for side, pad in zip(x.shape[2:], pads)):
        raise ValueError(f"weight reaches over {reach + 1} pixels, more than x has with its padding")
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    slow = stride == 1 and (taps > 3 or dilation > 1)
    # Wider padding makes outputs of zeros alone, and the convolution with the turned kernel would need a negative one.
    fits = 0 < x.numel() < POSITIONS * x.shape[:2].numel() and max(pads) <= reach
    if not (learns and slow and fits and _dispatch.provider_of(x, "depthwise_conv2d") == "cpu"):
        return reference.depthwise_conv2d(x, weight, stride=stride, padding=pads, dilation=dilation)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    return _DepthwiseConv2d.apply(x, weight, pads, dilation)


class _DepthwiseConv2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
        return F.conv2d(x, weight, None, 1, padding, dilation, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.geometry = inputs[2:]

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # gradients have the precision of the values
            of_x = cpu.gradient_of_input(upstream, weight, *ctx.geometry) if ctx.needs_input_grad[0] else None
            of_weight = cpu.gradient_of_weight(upstream, x, *ctx.geometry) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None
