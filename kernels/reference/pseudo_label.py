"""Plain definitions of pseudo-labels from upsampled logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .cutmix import box_mask
from .upsample import upsample_alike


def argmax_with_confidence(full: Tensor, with_confidence: bool) -> tuple[Tensor, Tensor | Any]:
    """(B, C, H, W) logits -> label (B, H, W) uint8, lowest index on ties, and its softmax probability (float32)."""
    peak, label = full.max(dim=1)
    confidence = (1 / torch.exp(full - peak[:, None]).sum(1)).float() if with_confidence else None
    return label.to(torch.uint8), confidence


def pseudo_label(
    logits: Tensor, size: Sequence[int], *, align_corners: bool = True, confidence: bool = True
) -> tuple[Tensor, Tensor | Any]:
    """Arguments as in `semiseg.kernels.pseudo_label`."""
    return argmax_with_confidence(upsample_alike(logits, size, align_corners), confidence)


def mixed_pseudo_label(
    logits_a: Tensor,
    logits_b: Tensor,
    boxes: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = True,
    confidence: bool = True,
) -> tuple[Tensor, Tensor | Any]:
    """Arguments as in `semiseg.kernels.mixed_pseudo_label`."""
    full_a, full_b = upsample_alike(logits_a, size, align_corners), upsample_alike(logits_b, size, align_corners)
    return argmax_with_confidence(torch.where(box_mask(boxes, size)[:, None], full_b, full_a), confidence)
