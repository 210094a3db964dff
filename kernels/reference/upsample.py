"""Plain definition of bilinear upsampling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .._arguments import accumulation_dtype


def upsample(maps: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Computed, and its gradient added up, in at least float32. Arguments as in `semiseg.kernels.upsample`."""
    return upsample_wide(maps, size, align_corners).to(maps.dtype)


def upsample_wide(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """(B, C, h, w) to (B, C, H, W) in float32, from float64 in float64."""
    maps = maps.to(accumulation_dtype(maps.dtype))
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
