"""An encoder of few weights, for tests that are not about an encoder; in float64, and compiled, others take minutes."""

from __future__ import annotations

from torch import Tensor, nn

from semiseg.engine.models import Encoder
from semiseg.engine.models.encoders.resnet import BasicBlock


class Few(nn.Module):
    """Two blocks of few channels: (B, 3, H, W) to maps at strides 4 and 16."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 16, stride=4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine = self.blocks[0](self.stem(x))
        return fine, self.blocks[1](fine)


ENCODER = Encoder(build=Few, channels=(8, 16), strides=(4, 16), multiple=1, weights=dict)
"""The fixture `tiny`, and programs that tests start, have it as a backbone by the name of few."""
