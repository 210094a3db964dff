"""Cross-entropy on upsampled logits on the CPU: one tile of upsampled logits exists at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import outside_autocast
from .bilinear import upsampled_tiles
from .workers import over


@outside_autocast  # a backward pass may run inside
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    align_corners: bool,
    ignore_index: int,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted losses (float32) and number of valid pixels (int64).

    Fills `losses` (B, H, W) float32, and adds the gradient of the sum to `gradient` (B, C, h, w) float32. Raises
    ValueError where the target is neither a class nor `ignore_index`.
    """

    def of_images(part: slice) -> tuple[Tensor, Tensor]:
        maps = (weight, losses, gradient)
        weights, each, gradients = (None if tensor is None else tensor[part] for tensor in maps)
        return _of_images(logits[part], target[part], weights, each, gradients, align_corners, ignore_index)

    totals, counts = zip(*over(len(logits), of_images))
    return torch.stack(totals).sum().float(), torch.stack(counts).sum()


def _of_images(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    losses: Tensor | None,
    gradient: Tensor | None,
    align_corners: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted losses (float64) and number of valid pixels."""
    classes = logits.shape[1]
    total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    scratch = torch.empty(0, dtype=torch.float32)
    for place, values in upsampled_tiles(logits, target.shape[1:], align_corners, gradient):
        target_tile = target[place].reshape(1, -1).long()
        valid = target_tile != ignore_index
        target_tile = torch.where(valid, target_tile, 0)
        least, most = int(target_tile.min()), int(target_tile.max())
        if least < 0 or most >= classes:
            wrong = least if least < 0 else most
            raise ValueError(f"target holds {wrong}, neither below {classes} classes nor ignore_index {ignore_index}")
        scale = valid.float() if weight is None else torch.where(valid, weight[place].reshape(1, -1), 0).float()
        if scratch.shape != values.shape:
            scratch = torch.empty_like(values)
        probability = torch.softmax(values, 0, out=scratch)
        # The log of the sum of exponentials is the largest value minus the log of its probability.
        loss = (values.amax(0) - values.gather(0, target_tile) - probability.amax(0).log()) * scale
        total += loss.sum()
        count += valid.sum()
        if losses is not None:
            losses[place] = loss.view_as(losses[place])
        if gradient is not None:
            probability.scatter_add_(0, target_tile, torch.full_like(scale, -1.0))
            torch.mul(probability, scale, out=values)
    return total, count
