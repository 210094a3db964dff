"""DeepLabv3+ (Chen et al., 2018): the pyramids of the published semi-supervised programs, and the decoder proper."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels import upsample_conv2d
from ....pipelines.errors import UsageError
from ..encoders.resnet import conv

RATES = (6, 12, 18)
WIDE_RATES = (12, 24, 36)
"""Of U2PL, whose maps have half the stride; encoders without forms get them at theirs."""


class ConcatenatingASPP(nn.Module):
    """Atrous spatial pyramid pooling of CAC and UniMatch: five normalised branches, concatenated and merged.

    Maps (B, C, h, w) to (B, W, h, w).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        dropout: float = 0.0,
        rates: tuple[int, int, int] = RATES,
        kernel: int = 1,
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(branch, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for branch in _atrous_convolutions(inputs, width, rates)
        )
        self.pooled = nn.Sequential(conv(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.merge = conv(5 * width, width, kernel)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(_global_mean(x, self.pooled[1]))
        branches = torch.cat([branch(x) for branch in self.branches], 1)
        return self.dropout(self.relu(self.norm(self.merged(branches, pooled))))

    def merged(self, branches: Tensor, pooled: Tensor) -> Tensor:
        """(B, 4 W, h, w) and (B, W, 1, 1) to (B, W, h, w)."""
        # The pooled branch is constant over the image, and so is its share of the merged map: it is added as one
        # vector per image rather than repeated, concatenated and multiplied at every position.
        spatial, constant = self.merge.weight.split([branches.shape[1], pooled.shape[1]], dim=1)
        return F.conv2d(branches, spatial) + F.conv2d(pooled, constant)


class ConvolvingASPP(ConcatenatingASPP):
    """Atrous spatial pyramid pooling of U2PL: the pooled branch is the first of five, which a 3x3 convolution merges.

    Maps (B, C, h, w) to (B, W, h, w). Dropout is of whole channels.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width, rates=WIDE_RATES, kernel=3)
        self.dropout = nn.Dropout2d(0.1)

    def merged(self, branches: Tensor, pooled: Tensor) -> Tensor:
        # The share of the pooled branch is constant but for the border, where the padding is.
        constant, spatial = self.merge.weight.split([pooled.shape[1], branches.shape[1]], dim=1)
        return F.conv2d(branches, spatial, padding=1) + upsample_conv2d(pooled, constant, branches.shape[-2:])


class SummingASPP(nn.Module):
    """Atrous spatial pyramid pooling of CPS: four branches under one normalisation, plus the pooled branch; LeakyReLU.

    Maps (B, C, h, w) to (B, W, h, w).
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.branches = nn.ModuleList(_atrous_convolutions(inputs, width))
        self.branch_norm = nn.BatchNorm2d(4 * width)
        self.pooled = conv(inputs, width, 1)
        self.pooled_norm = nn.BatchNorm2d(width)
        self.merge = conv(4 * width, width, 1)
        self.merge_pooled = conv(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.activation(self.pooled_norm(self.pooled(_global_mean(x, self.pooled_norm))))
        branches = torch.cat([branch(x) for branch in self.branches], 1)
        branches = self.activation(self.branch_norm(branches))
        return self.activation(self.norm(self.merge(branches) + self.merge_pooled(pooled)))


class DeepLabDecoder(nn.Module):
    """Joins low-level features (B, C, h, w) with the ASPP's output (B, W, h/4, w/4) to (B, W, h, w).

    `dropout` stands between the two convolutions; 0 for none. `low_first` is the order of the concatenation.
    """

    def __init__(self, channels: tuple[int, ...], width: int, *, dropout: float = 0.0, low_first: bool = False):
        super().__init__()
        self.width, self.low_first = width, low_first
        reduced = max(8, width * 48 // 256)
        self.reduce = nn.Sequential(conv(channels[0], reduced, 1), nn.BatchNorm2d(reduced), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(
            conv(width + reduced, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            conv(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return _refined(self.refine, self.reduce(low), high, low_first=self.low_first)


class TwoHeadDecoder(nn.Module):
    """U2PL's: joins low-level features (B, C, h, w) with the ASPP's output (B, W, h', w') to (B, W, h, w).

    A `projector` has a head of its own of the same two maps: where it is asked for, the output is (B, 2 W, h, w),
    features first.
    Convolutions have biases, and dropout is of whole channels.
    """

    def __init__(self, channels: tuple[int, ...], width: int, *, projector: bool = False):
        super().__init__()
        self.width = width
        self.reduce = nn.Sequential(nn.Conv2d(channels[0], width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.refine = _head(width)
        self.projector = _head(width) if projector else None

    def forward(self, low: Tensor, high: Tensor, *, projected: bool = True) -> Tensor:
        low = self.reduce(low)
        features = _refined(self.refine, low, high, low_first=True)
        if self.projector is None or not projected:
            return features
        return torch.cat([features, _refined(self.projector, low, high, low_first=True)], 1)


def _head(width: int) -> nn.Sequential:
    """Two convolutions of two maps of `width` channels each."""
    return nn.Sequential(
        nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout2d(0.1),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout2d(0.1),
    )  # fmt: skip


def _refined(head: nn.Sequential, low: Tensor, high: Tensor, *, low_first: bool) -> Tensor:
    """`head`, which begins with a 3x3 convolution, of low-level features and the upsampled map, concatenated."""
    # The convolution is the sum of its two parts, of which the upsampled one costs least before it is upsampled.
    convolution, *others = head
    weight: Any = convolution.weight
    bias: Any = convolution.bias
    if low_first:
        of_low, of_high = weight.split([low.shape[1], high.shape[1]], dim=1)
    else:
        of_high, of_low = weight.split([high.shape[1], low.shape[1]], dim=1)
    y = F.conv2d(low, of_low, bias, padding=1) + upsample_conv2d(high, of_high, low.shape[-2:])
    for module in others:
        y = module(y)
    return y


def _atrous_convolutions(inputs: int, width: int, rates: tuple[int, int, int] = RATES) -> list[nn.Conv2d]:
    return [conv(inputs, width, 1), *(conv(inputs, width, 3, dilation=rate) for rate in rates)]


def _global_mean(x: Tensor, norm: nn.Module) -> Tensor:
    """Mean over the image (B, C, 1, 1), refusing a batch whose statistics `norm` could not take."""
    if len(x) == 1 and norm.training and not isinstance(norm, nn.SyncBatchNorm):
        raise UsageError(
            "the network cannot train on one image at a time, since batch normalisation needs more than one value per "
            "channel in the pooled ASPP branch: use a batch of at least 2 images per process"
        )
    return x.mean((2, 3), keepdim=True)
