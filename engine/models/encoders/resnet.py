"""Dilated ResNet with torchvision's names, so that torchvision's weights load by name.

He et al., Deep Residual Learning (2016); stage 4 with a multi-grid of dilations: Chen et al., Rethinking Atrous
Convolution (2017). The output stride is 16: the last stage keeps its resolution, and the 3x3 convolutions of its
blocks are dilated. With one of 8 so does the stage before.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ..fill import fill

MULTI_GRID = (2, 4, 8)


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that stride 1 keeps the size."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; both are dilated, the first one has the stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; stride and dilation sit on the 3x3 convolution."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Maps (B, 3, H, W) to the pair of stage 1 (B, 64 E, H/4, W/4) and stage 4 (B, 512 E, H/S, W/S).

    Sides round up, S is the `output_stride`; E is the expansion of the blocks, of which `blocks` says how many each
    stage has. `deep_stem` replaces the 7x7 convolution of the stem by three 3x3 convolutions ("v1c"), after which stage
    1 receives 128 channels instead of 64. `multi_grid` are the dilations of the blocks of stage 4. With `ceil_pool` the
    sides of stage 1 are (H + 1) // 4 + 1, those of stage 4 follow from them.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, int, int, int],
        *,
        deep_stem: bool = False,
        multi_grid: tuple[int, int, int] = MULTI_GRID,
        output_stride: Literal[8, 16] = 16,
        ceil_pool: bool = False,
    ):
        super().__init__()
        n1, n2, n3, n4 = blocks
        stem = 128 if deep_stem else 64

        if deep_stem:
            self.conv1: nn.Module = nn.Sequential(
                conv(3, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                conv(64, 64, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                conv(64, stem, 3),
            )  # fmt: skip
        else:
            self.conv1 = conv(3, stem, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_pool)
        self.layer1 = _stage(block, stem, 64, [1] * n1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, [1] * n2, stride=2)
        # Where dilation replaces the stride, it begins behind the block that has the stride otherwise.
        dilations, stride = ([1] * n3, 2) if output_stride == 16 else ([1] + [2] * (n3 - 1), 1)
        self.layer3 = _stage(block, 128 * block.expansion, 256, dilations, stride=stride)
        self.layer4 = _stage(block, 256 * block.expansion, 512, multi_grid[:n4])

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fill(nn.init.kaiming_normal_, module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return low, self.layer4(self.layer3(self.layer2(low)))


def _stage(
    block: type[BasicBlock | Bottleneck], inputs: int, width: int, dilations: Sequence[int], stride: int = 1
) -> nn.Sequential:
    """One block per dilation; the first has the stride."""
    first, *others = dilations
    outputs = width * block.expansion
    return nn.Sequential(block(inputs, width, stride, first), *(block(outputs, width, 1, d) for d in others))
