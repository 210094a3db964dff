"""A convolution of an upsampled map at the price of the small map.

Decoders of the DeepLabv3+ kind upsample a map and convolve it. Both steps are linear, so they may change places: each
of the k^2 taps is multiplied at the small map's positions, and what is upsampled is the products. Upsampling by
bilinear interpolation is a product with a matrix for each axis, and the shift of a tap is a shift of the rows of that
matrix, rows outside the large map being zero as its padding is. With A_dy of (H, h), the interpolation of row y + dy,

    out[o] = sum_{dy, dx} A_dy (W[o, :, dy, dx] x) A_dx^T

Multiply-adds for each image, with C channels in and O out:

    convolving the upsampled map    k^2 C O H W
    here                            k^2 C O h w  +  O (k h H k w + H k w W)

At 256 channels, 20x20 -> 80x80 and k = 3 that is 3.8 G against 0.4 G. The gradients are products of the same sizes:
sums in a fixed order and in the accumulator of matrix products, where the gradient of a plain interpolation is added
up by atomics on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import accumulation_dtype, check_maps, check_size, check_tensor, dtypes_beside, memory_format


def upsample_conv2d(x: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """`conv2d(interpolate(x, size), weight)`: bilinear with aligned corners, then stride 1 with zero padding that keeps
    the size.

    x: (B, C, h, w) float; weight: (O, C, k, k) with odd k, of the same dtype, or of any that autocast casts with it.
    size: (H, W), larger or smaller than (h, w). Returns (B, O, H, W) in the dtype of the products and the memory format
    of `x`; gradients flow to both. float64 computes the plain definition.
    Raises TypeError or ValueError naming the argument.
    """
    check_maps("x", x)
    check_tensor("weight", weight, (None, x.shape[1], None, None), dtypes_beside(x), x.device)
    size = check_size(size)
    taps = weight.shape[-1]
    if weight.shape[-2] != taps or taps % 2 == 0:
        raise ValueError(f"weight must have a square kernel of an odd side, not {tuple(weight.shape[-2:])}")
    if _dispatch.provider_of(x, "upsample_conv2d") == "plain":
        return reference.upsample_conv2d(x, weight, size)
    (batch, _, h, w), outputs = x.shape, weight.shape[0]
    rows, columns = (_interpolation(small, large, taps, x) for small, large in zip((h, w), size))
    products = x.permute(0, 2, 3, 1) @ weight.permute(1, 2, 3, 0).flatten(1)
    products = products.view(batch, h, w, taps, taps, outputs).permute(0, 3, 1, 4, 2, 5)
    upsampled = rows @ products.reshape(batch, taps * h, taps * w * outputs)
    out = (columns @ upsampled.view(batch, size[0], taps * w, outputs)).permute(0, 3, 1, 2)
    return out.contiguous(memory_format=memory_format(x))


def _interpolation(small: int, large: int, taps: int, like: Tensor) -> Tensor:
    """(large, taps * small): row y holds the weights of the small positions for the large position y + d, tap by tap;
    zero where that lies outside."""
    dtype, device = accumulation_dtype(like.dtype), like.device
    offsets = torch.arange(taps, device=device) - taps // 2
    place = torch.arange(large, device=device)[:, None] + offsets
    inside = (place >= 0) & (place < large)
    place = place.to(dtype) * ((small - 1) / max(large - 1, 1))
    distance = (place[..., None] - torch.arange(small, device=device)).abs()
    return ((1 - distance).clamp(min=0) * inside[..., None]).flatten(1).to(like.dtype)
