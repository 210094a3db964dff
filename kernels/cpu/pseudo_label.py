"""Pseudo-labels on the CPU: one tile of upsampled logits exists at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference.cutmix import box_mask
from .bilinear import upsampled_tiles
from .workers import over


def pseudo_label(logits: Tensor, align_corners: bool, label: Tensor, confidence: Tensor | None) -> None:
    """Fills label (B, H, W) and confidence; the other arguments as in `semiseg.kernels.pseudo_label`."""

    def of_images(part: slice) -> None:
        maps = label[part], None if confidence is None else confidence[part]
        for place, values in upsampled_tiles(logits[part], label.shape[1:], align_corners):
            _classify(values, place, *maps)

    over(len(logits), of_images)


def mixed_pseudo_label(
    logits_a: Tensor,
    logits_b: Tensor,
    boxes: Tensor,
    align_corners: bool,
    label: Tensor,
    confidence: Tensor | None,
) -> None:
    """Fills label (B, H, W) and confidence; the other arguments as in `semiseg.kernels.mixed_pseudo_label`."""
    size = label.shape[1:]
    mask = box_mask(boxes, size)

    def of_images(part: slice) -> None:
        maps = label[part], None if confidence is None else confidence[part]
        tiles_a = upsampled_tiles(logits_a[part], size, align_corners)
        tiles_b = upsampled_tiles(logits_b[part], size, align_corners)
        for (place, values_a), (_, values_b) in zip(tiles_a, tiles_b):
            torch.where(mask[part][place].reshape(1, -1), values_b, values_a, out=values_a)
            _classify(values_a, place, *maps)

    over(len(logits_a), of_images)


def _classify(values: Tensor, place: tuple[int, slice, slice], label: Tensor, confidence: Tensor | None) -> None:
    """Write the argmax of (C, pixels) logits and its probability into the tile of the maps at `place`."""
    tile = label[place]
    tile.copy_(values.max(0).indices.view_as(tile))
    if confidence is not None:
        confidence[place] = torch.softmax(values, 0).amax(0).view_as(tile)
