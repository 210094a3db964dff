"""Plain definition of a convolution of each channel by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def depthwise_conv2d(
    x: Tensor, weight: Tensor, *, stride: int = 1, padding: int | tuple[int, int] = 0, dilation: int = 1
) -> Tensor:
    """Arguments as in `semiseg.kernels.depthwise_conv2d`."""
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])
