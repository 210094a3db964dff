"""Plain definition of the confusion matrix of upsampled logits."""

from __future__ import annotations

import torch
from torch import Tensor

from .upsample import upsample_alike


def upsample_confusion(
    logits: Tensor, target: Tensor, num_classes: int, *, align_corners: bool = True, ignore_index: int = 255
) -> Tensor:
    """Arguments as in `semiseg.kernels.upsample_confusion`."""
    prediction = upsample_alike(logits, tuple(target.shape[-2:]), align_corners).argmax(1)
    target = target.long()
    counted = (target != ignore_index) & (target >= 0) & (target < num_classes)
    # Pixels that are not counted share one extra bin, so that no shape depends on the data.
    bins = torch.where(counted, target * num_classes + prediction, num_classes * num_classes).flatten()
    counts = torch.zeros(num_classes * num_classes + 1, dtype=torch.int64, device=logits.device)
    counts = counts.scatter_add(0, bins, torch.ones_like(bins))
    return counts[:-1].view(num_classes, num_classes)
