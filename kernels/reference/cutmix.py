"""Plain definition of CutMix with toggled boxes (French et al., BMVC 2020; Chen et al., CPS, CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def box_mask(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(B, n, 4) boxes (y0, x0, y1, x1), ends exclusive -> (B, H, W) bool, toggled by each box in turn."""
    rows = torch.arange(size[0], device=boxes.device)
    columns = torch.arange(size[1], device=boxes.device)
    mask = torch.zeros((boxes.shape[0], *size), dtype=torch.bool, device=boxes.device)
    for box in boxes.unbind(1):
        y0, x0, y1, x1 = box[:, :, None].unbind(1)
        mask = mask ^ (((rows >= y0) & (rows < y1))[:, :, None] & ((columns >= x0) & (columns < x1))[:, None, :])
    return mask


def cutmix(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    """Arguments as in `semiseg.kernels.cutmix`."""
    mask = box_mask(boxes, (images_a.shape[2], images_a.shape[3]))
    return torch.where(mask[:, None], images_b, images_a)
