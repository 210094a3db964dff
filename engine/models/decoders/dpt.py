"""The decoder of dense prediction transformers: maps of one stride become a pyramid, which is fused from deep to
shallow (Ranftl et al., 2021), without normalisation and with the sizes of UniMatch V2.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels import upsample_conv2d

PUBLISHED_WIDTH = 256


class DPTDecoder(nn.Module):
    """Joins four maps (B, D, h, w), shallow first, to features (B, F, 8 h, 8 w).

    F and the channels inside are those that were published for an encoder of D channels, times `width` / 256.
    """

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        published, of_levels = sizes(channels[0])
        self.width = features = scaled(published, width)
        levels = [scaled(each, width) for each in of_levels]
        self.projects = nn.ModuleList(nn.Conv2d(inputs, level, 1) for inputs, level in zip(channels, levels))
        first, second, _, last = levels
        self.resizes = nn.ModuleList(
            (
                nn.ConvTranspose2d(first, first, 4, 4),
                nn.ConvTranspose2d(second, second, 2, 2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, 2, 1),
            )
        )
        self.narrows = nn.ModuleList(nn.Conv2d(level, features, 3, padding=1, bias=False) for level in levels)
        self.fusions = nn.ModuleList(Fusion(features) for _ in levels)
        self.output = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, *maps: Tensor) -> Tensor:
        levels = [
            narrow(resize(project(each)))
            for each, project, resize, narrow in zip(maps, self.projects, self.resizes, self.narrows, strict=True)
        ]
        sizes = [level.shape[-2:] for level in levels]
        height, width = sizes[0]
        y = None
        for level, fusion, size in zip(levels[::-1], self.fusions[::-1], [*sizes[-2::-1], (2 * height, 2 * width)]):
            y = fusion(level, y, size)
        return F.relu(self.output(y))


class Fusion(nn.Module):
    """Adds a level (B, F, h, w) to what came from the deeper ones, refines the sum and brings it to the next size."""

    def __init__(self, features: int):
        super().__init__()
        # The deepest fusion has nothing to add to: there `side` is idle, and is here because published files have it.
        self.side, self.refine = Residual(features), Residual(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, level: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> Tensor:
        y = self.refine(level if deeper is None else deeper + self.side(level))
        # A 1x1 convolution and bilinear interpolation may change places, and so may the bias.
        assert self.out.bias is not None
        return upsample_conv2d(y, self.out.weight, size) + self.out.bias[:, None, None]


class Residual(nn.Module):
    """Two activations and 3x3 convolutions beside a shortcut. (B, F, h, w) -> (B, F, h, w)."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def sizes(channels: int) -> tuple[int, tuple[int, int, int, int]]:
    """The published channels of features and of the four levels, for an encoder of so many."""
    if channels == 1024:
        return 256, (256, 512, 1024, 1024)
    return channels // 6, (channels // 8, channels // 4, channels // 2, channels)


def scaled(channels: int, width: int) -> int:
    """A published number of channels as a share of the published width."""
    return max(channels * width // PUBLISHED_WIDTH, 1)
