"""Confusion counts on the CPU: one tile of upsampled logits exists at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .bilinear import upsampled_tiles


def upsample_confusion(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    """Arguments as in `semiseg.kernels.upsample_confusion`."""
    classes = logits.shape[1]
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for place, values in upsampled_tiles(logits, tuple(target.shape[1:]), align_corners):
        target_tile = target[place].flatten().long()
        counted = (target_tile != ignore_index) & (target_tile >= 0) & (target_tile < classes)
        pairs = target_tile * classes + values.max(0).indices
        counts += torch.bincount(pairs[counted], minlength=classes * classes)
    return counts.view(classes, classes)
