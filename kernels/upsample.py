"""Bilinear upsampling of feature maps whose gradient is gathered: each value of it is summed by one thread, in float32
and in a fixed order.

    full = A_y low A_x^T,        d loss / d low = A_y^T (d loss / d full) A_x

A_y and A_x are the interpolation matrices of F.interpolate, with two entries in each row. torch's own gradient on CUDA
scatters instead: for a factor of s, up to (2 s - 1)^2 values are added to a node atomically, in random order and in the
dtype of the maps, which for bfloat16 has 8 bits of mantissa. With e bytes an element both ways move
e B C (h w + H W) bytes; scattering reads and writes four nodes for each pixel on top of that.

On the CPU torch's own gradient is right, a rounding error from float64 in every dtype, and is what runs there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _dispatch, reference
from ._arguments import check_flag, check_maps, check_size, memory_format
from ._derivatives import without_tangent
from .gpu import upsample as gpu


@torch.library.custom_op("semiseg::upsample", mutates_args=())
def _operator(maps: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    return gpu.upsample(maps, (height, width), align_corners, memory_format(maps))


def _empty(maps: Tensor, height: int, width: int, order: torch.memory_format) -> Tensor:
    return torch.empty((*maps.shape[:2], height, width), dtype=maps.dtype, device=maps.device, memory_format=order)


@_operator.register_fake
def _(maps, height, width, align_corners):
    return _empty(maps, height, width, memory_format(maps))


@torch.library.custom_op("semiseg::upsample_backward", mutates_args=())
def _backward_operator(gradient: Tensor, height: int, width: int, align_corners: bool, channels_last: bool) -> Tensor:
    """The gradient with respect to maps of `height` and `width`, in their memory format."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    return gpu.gather(gradient, (height, width), align_corners, order)


@_backward_operator.register_fake
def _(gradient, height, width, align_corners, channels_last):
    return _empty(gradient, height, width, torch.channels_last if channels_last else torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    maps, _, _, ctx.align_corners = inputs
    ctx.size, ctx.channels_last = maps.shape[2:], memory_format(maps) == torch.channels_last


def _backward(ctx, gradient):
    without_tangent("upsample", gradient)
    return _backward_operator(gradient, *ctx.size, ctx.align_corners, ctx.channels_last), None, None, None


_operator.register_autograd(_backward, setup_context=_setup_context)


def _setup_twice(ctx, inputs, output):
    gradient, _, _, ctx.align_corners, _ = inputs
    ctx.size = gradient.shape[2:]


def _backward_twice(ctx, maps):
    without_tangent("upsample", maps)
    return _operator(maps, *ctx.size, ctx.align_corners), *[None] * 4


# Gathering is the transpose of upsampling.
_backward_operator.register_autograd(_backward_twice, setup_context=_setup_twice)


def upsample(maps: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Maps at another size, as F.interpolate(maps, size, mode="bilinear"), with a deterministic gradient.

    maps: (B, C, h, w) float. size: (H, W), also smaller ones, without antialiasing.
    Returns (B, C, H, W) in the dtype and memory format of `maps`. Raises TypeError or ValueError naming the argument.
    """
    check_maps("maps", maps)
    height, width = check_size(size)
    check_flag("align_corners", align_corners)
    provider = _dispatch.provider_of(maps, "upsample")
    if provider == "torch":
        return F.interpolate(maps, (height, width), mode="bilinear", align_corners=align_corners)
    if provider == "plain":
        full = reference.upsample(maps, (height, width), align_corners=align_corners)
        # On CUDA torch chooses the memory format by itself where channels are few.
        return full.contiguous(memory_format=memory_format(maps))
    return _operator(maps, height, width, align_corners)
