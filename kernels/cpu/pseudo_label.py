"""Pseudo-labels on the CPU: one tile of upsampled logits exists at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference.cutmix import box_mask
from .bilinear import upsampled_tiles


def pseudo_label(logits: Tensor, size: tuple[int, int], align_corners: bool) -> tuple[Tensor, Tensor]:
    """Arguments as in `semiseg.kernels.pseudo_label`."""
    label, confidence = _empty(logits, size)
    for place, values in upsampled_tiles(logits, size, align_corners):
        _classify(values, label[place], confidence[place])
    return label, confidence


def mixed_pseudo_label(
    logits_a: Tensor, logits_b: Tensor, boxes: Tensor, size: tuple[int, int], align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Arguments as in `semiseg.kernels.mixed_pseudo_label`."""
    label, confidence = _empty(logits_a, size)
    mask = box_mask(boxes, size)
    tiles_a = upsampled_tiles(logits_a, size, align_corners)
    tiles_b = upsampled_tiles(logits_b, size, align_corners)
    for (place, values_a), (_, values_b) in zip(tiles_a, tiles_b):
        torch.where(mask[place].reshape(1, -1), values_b, values_a, out=values_a)
        _classify(values_a, label[place], confidence[place])
    return label, confidence


def _empty(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], *size)
    return torch.empty(shape, dtype=torch.uint8), torch.empty(shape, dtype=torch.float32)


def _classify(values: Tensor, label: Tensor, confidence: Tensor) -> None:
    """Write the argmax of (C, pixels) logits and its probability into one tile of the maps."""
    label.copy_(values.max(0).indices.view_as(label))
    confidence.copy_(torch.softmax(values, 0).amax(0).view_as(confidence))
