"""Plain definition of the squared error between probabilities of upsampled logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cutmix import box_mask
from .upsample import upsample_wide


def upsample_mse(
    logits: Tensor,
    teacher: Tensor,
    size: Sequence[int],
    *,
    other: Tensor | None = None,
    boxes: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    align_corners: bool = True,
) -> Tensor:
    """Interpolate, softmax, squared error. Arguments as in `semiseg.kernels.upsample_mse`."""
    full = upsample_wide(teacher.detach(), size, align_corners)
    if other is not None and boxes is not None:
        full = torch.where(box_mask(boxes, size)[:, None], upsample_wide(other.detach(), size, align_corners), full)
    wanted = full.softmax(1)
    errors = (upsample_wide(logits, size, align_corners).softmax(1) - wanted).square().sum(1)
    if pixel_weight is not None:
        weight = pixel_weight.clone() if pixel_weight.is_inference() else pixel_weight  # which autograd cannot keep
        errors = errors * weight.detach().to(errors.dtype)
    if normalizer is None:
        return errors.mean()
    return errors.sum() / normalizer.detach().to(errors.dtype).clamp(min=1)
