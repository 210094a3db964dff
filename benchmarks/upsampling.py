"""Sizes and inputs that the benchmarks of upsampled logits share: the crops that CPS trains on, 16 images."""

from __future__ import annotations

import torch
from torch import Tensor

SIZES = {
    "voc": {"batch": 16, "classes": 21, "low": (81, 81), "full": (321, 321)},
    "cityscapes": {"batch": 16, "classes": 19, "low": (200, 200), "full": (800, 800)},
}
TINY = {"batch": 2, "classes": 5, "low": (9, 11), "full": (33, 40)}


def random_logits(batch: int, classes: int, low: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return (3 * torch.randn(batch, classes, *low, device=device)).to(dtype)


def random_target(batch: int, classes: int, full: tuple[int, int], device: torch.device) -> Tensor:
    """Classes as uint8, as the loader gives them; one pixel of twenty is ignored."""
    target = torch.randint(classes, (batch, *full), device=device, dtype=torch.uint8)
    return target.masked_fill(torch.rand(target.shape, device=device) < 0.05, 255)


def random_boxes(batch: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(batch, 3, 4) int64: three boxes of half the height and width, somewhere."""
    height, width = size
    top = torch.randint(height - height // 2 + 1, (batch, 3), device=device)
    left = torch.randint(width - width // 2 + 1, (batch, 3), device=device)
    return torch.stack([top, left, top + height // 2, left + width // 2], dim=2)
