"""EfficientNet-lite: EfficientNets (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 and a stem of fixed
width, as Google published them for small devices.

Names are those of the PyTorch files that carry their ImageNet weights, so that these load by name. As in TensorFlow,
padding keeps ceil(size / stride) positions: with a stride of 2 an even side has one more pixel of it behind than
before. The output stride is 16: the last stage with a stride keeps its resolution, and what follows is dilated.
"""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels import depthwise_conv2d
from ..fill import fill

# kernel, stride, expansion, channels and blocks of each stage of lite0
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM = 32
LOW = 1  # the stage whose map is the fine one


class SameConv2d(nn.Conv2d):
    """A convolution without bias that keeps ceil(size / stride) positions, padding at the end first."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.padded(x)
        return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)

    def padded(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """The input, with zeros where an odd number of them is missing, and how many are missing on every side of it,
        vertically and horizontally."""
        stride, reach = self.stride[0], self.dilation[0] * (self.kernel_size[0] - 1)
        more = [max((-(-side // stride) - 1) * stride + reach + 1 - side, 0) for side in x.shape[-2:]]
        before = [each // 2 for each in more]
        if not any(each % 2 for each in more):
            return x, before
        (top, left), (height, width) = before, more
        return F.pad(x, (left, width - left, top, height - top)), [0, 0]


class DepthwiseConv2d(SameConv2d):
    """A `SameConv2d` of each channel by itself: (B, C, H, W) to (B, C, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1):
        super().__init__(channels, channels, kernel, stride=stride, dilation=dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.padded(x)
        form: dict[str, Any] = {"stride": self.stride[0], "padding": padding, "dilation": self.dilation[0]}
        return depthwise_conv2d(x, self.weight, **form)


class Block(nn.Module):
    """Expands, filters each channel, projects; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, expansion: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        width = inputs * expansion
        self.expands, self.shortcut = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = SameConv2d(inputs, width, 1), norm(width)
        self._depthwise_conv = DepthwiseConv2d(width, kernel, stride=stride, dilation=dilation)
        self._bn1 = norm(width)
        self._project_conv, self._bn2 = SameConv2d(width, outputs, 1), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    """Maps (B, 3, H, W) to the maps of stage 2 (B, C, H/4, W/4) and of the last stage (B, C', H/S, W/S), sides rounded
    up, S being `output_stride`, 16 or 32 (as published).

    `width` and `depth` multiply the channels, and the blocks of all stages but the first and the last.
    """

    def __init__(self, width: float, depth: float, *, output_stride: int = 16):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv2d(3, STEM, 3, stride=2), norm(STEM)
        self._blocks = nn.ModuleList()
        inputs, reached, dilation = STEM, 2, 1
        for number, (kernel, stride, expansion, channels, blocks) in enumerate(STAGES):
            outputs = scaled(channels, width)
            if number not in (0, len(STAGES) - 1):
                blocks = math.ceil(blocks * depth)
            # The convolution that gave up its stride still sees neighbours: only those after it are dilated.
            first, rate = stride, dilation
            if reached * stride > output_stride:
                first, rate = 1, dilation * stride
            reached *= first
            for block in range(blocks):
                form: dict[str, Any] = {"stride": first, "dilation": dilation} if block == 0 else {"dilation": rate}
                self._blocks.append(Block(inputs, outputs, kernel, expansion=expansion, **form))
                inputs = outputs
            dilation = rate
            if number == LOW:
                self.blocks_to_low = len(self._blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fill(nn.init.kaiming_normal_, module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks[: self.blocks_to_low]:
            x = block(x)
        low = x
        for block in self._blocks[self.blocks_to_low :]:
            x = block(x)
        return low, x


def norm(channels: int) -> nn.BatchNorm2d:
    """With the published epsilon, but torch's momentum: the published one, 0.01, follows too slowly for short runs."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def scaled(channels: int, width: float) -> int:
    """The published rounding: to a multiple of 8, and not down by more than a tenth."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded
