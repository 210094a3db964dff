"""CPS's program, without CutMix and with it."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import box_masks
from .images import Images
from .way import PublishedWay, cross_entropy


class Cps(PublishedWay):
    branches = ("branch1", "branch2")
    streams = (Images,)

    def losses(self, x: Tensor, target: Tensor, u: Tensor) -> dict[str, Tensor]:
        both = [(self.full(network, x), self.full(network, u)) for network in (self.branch1, self.branch2)]
        first, second = (torch.cat(parts) for parts in both)
        label1, label2 = (logits.max(1).indices for logits in (first, second))
        cps = cross_entropy(first, label2) + cross_entropy(second, label1)
        supervised = cross_entropy(both[0][0], target) + cross_entropy(both[1][0], target)
        return {"loss": supervised + self.config.weight * cps, "supervised": supervised, "cps": cps}


class CutMixCps(PublishedWay):
    branches = ("branch1", "branch2")
    streams = (Images, Images)

    def losses(self, x: Tensor, target: Tensor, u: Tensor, v: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        if mask is None:
            mask = torch.from_numpy(box_masks(len(u), u.shape[-2:])).to(u)
        mixed = u * (1 - mask) + v * mask
        with torch.no_grad():
            label1, label2 = (
                (self.full(network, u) * (1 - mask) + self.full(network, v) * mask).max(1).indices
                for network in (self.branch1, self.branch2)
            )
        cps = cross_entropy(self.full(self.branch1, mixed), label2)
        cps = cps + cross_entropy(self.full(self.branch2, mixed), label1)
        supervised = cross_entropy(self.full(self.branch1, x), target) + cross_entropy(
            self.full(self.branch2, x), target
        )
        return {"loss": supervised + self.config.weight * cps, "supervised": supervised, "cps": cps}
