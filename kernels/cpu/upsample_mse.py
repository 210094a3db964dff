"""Squared error between probabilities of upsampled logits on the CPU: one tile of each exists at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import outside_autocast
from ..reference.cutmix import box_mask
from .bilinear import upsampled_tiles


@outside_autocast
def mse(
    logits: Tensor,
    teacher: Tensor,
    other: Tensor | None,
    boxes: Tensor | None,
    weight: Tensor | None,
    size: Sequence[int],
    align_corners: bool,
    gradient: Tensor | None = None,
) -> Tensor:
    """Sum of the weighted errors (float32). Adds the gradient of the sum to `gradient` (B, C, h, w) float32."""
    total = torch.zeros((), dtype=torch.float64)
    mask = None if boxes is None else box_mask(boxes, size)
    sources = [logits, teacher] if other is None else [logits, teacher, other]
    tiles = [
        upsampled_tiles(source, size, align_corners, gradient if number == 0 else None)
        for number, source in enumerate(sources)
    ]
    for (place, values), (_, wanted), *others in zip(*tiles):
        if others and mask is not None:
            torch.where(mask[place].reshape(1, -1), others[0][1], wanted, out=wanted)
        probability = torch.softmax(values, 0)
        difference = probability - torch.softmax(wanted, 0)
        errors = difference.square().sum(0)
        scale = None if weight is None else weight[place].reshape(1, -1).float()
        total += errors.sum() if scale is None else (errors * scale[0]).sum()
        if gradient is not None:
            difference -= (probability * difference).sum(0)
            probability.mul_(2 if scale is None else 2 * scale)
            torch.mul(probability, difference, out=values)
    return total.float()
