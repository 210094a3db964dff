"""Confusion counts on the CPU: one tile of upsampled logits exists at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .bilinear import upsampled_tiles
from .workers import over


def upsample_confusion(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    """Arguments as in `semiseg.kernels.upsample_confusion`."""

    def of_images(part: slice) -> Tensor:
        return _of_images(logits[part], target[part], align_corners, ignore_index)

    return torch.stack(over(len(logits), of_images)).sum(0)


def _of_images(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    classes = logits.shape[1]
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for place, values in upsampled_tiles(logits, target.shape[1:], align_corners):
        target_tile = target[place].flatten().long()
        counted = (target_tile != ignore_index) & (target_tile >= 0) & (target_tile < classes)
        pairs = target_tile * classes + values.max(0).indices
        counts += torch.bincount(pairs[counted], minlength=classes * classes)
    return counts.view(classes, classes)
