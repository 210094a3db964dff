"""Plain definition of a convolution of an upsampled map."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def upsample_conv2d(x: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """Arguments as in `semiseg.kernels.upsample_conv2d`."""
    upsampled = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    return F.conv2d(upsampled, weight, padding=weight.shape[-1] // 2)
