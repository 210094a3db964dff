"""Plain definition of bilinear upsampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import accumulation_dtype


def upsample(maps: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Computed, and its gradient added up, in at least float32. Arguments as in `semiseg.kernels.upsample`."""
    return upsample_wide(maps, size, align_corners).to(maps.dtype)


def upsample_wide(maps: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """(B, C, h, w) to (B, C, H, W) in float32, from float64 in float64."""
    maps = maps.to(accumulation_dtype(maps.dtype))
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def upsample_alike(maps: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """The same with every channel rounded alike, so that ties stay ties: on the CPU F.interpolate rounds the last
    channels otherwise. `maps` are not differentiated."""
    maps = maps.detach().to(accumulation_dtype(maps.dtype))
    for dim, large in zip((2, 3), size):
        small = maps.shape[dim]
        place = torch.arange(large, device=maps.device, dtype=torch.float64)
        if align_corners:
            place = place * ((small - 1) / max(large - 1, 1))
        else:
            place = ((place + 0.5) * (small / large) - 0.5).clamp(min=0)
        before = place.long().clamp(max=small - 1)
        share = (place - before).to(maps.dtype).view(-1, *[1] * (3 - dim))
        behind = maps.index_select(dim, (before + 1).clamp(max=small - 1))
        maps = maps.index_select(dim, before) * (1 - share) + behind * share
    return maps
