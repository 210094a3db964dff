"""CPS: Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (Chen et al., CVPR 2021), section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...kernels import pseudo_label, upsample_cross_entropy
from ...pipelines.batch import Batch, Plain
from ...pipelines.views import ViewSpec
from ..models import Network
from .method import Method, MethodConfig, MethodContext, PseudoLabels
from .programs import cps_switches


@dataclass(kw_only=True, slots=True)
class CpsConfig(MethodConfig):
    """Cross pseudo supervision."""

    weight: float = 1.5
    """Weight of the cross pseudo supervision."""
    mean: Literal["joint", "separate"] = "joint"
    """joint: one mean over labelled and unlabelled pixels, as the published program; separate: the sum of the mean of
    either, as the paper writes it, twice as much for batches of equal size."""


class Cps(Method):
    """Two networks that differ by their random heads; each learns the other's labels on all images.

    loss = CE(f1(x), y) + CE(f2(x), y) + weight (CE(p1, argmax p2) + CE(p2, argmax p1)),  p = f(x) and f(u) together
    """

    name = "cps"
    config_class = CpsConfig
    config: CpsConfig
    steady = True
    views = ViewSpec(unlabeled="plain")
    terms: ClassVar = {"cps": "weight"}

    def __init__(self, config: CpsConfig, context: MethodContext):
        super().__init__(config, context)
        self.branch1 = context.network()
        self.branch2 = context.network()

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return cps_switches(layout)

    def losses(self, batch: Batch[Plain], progress: float) -> dict[str, Tensor]:
        x, target, u = batch.labeled.image, batch.labeled.target, batch.unlabeled.image
        x1, u1 = self.branch1.logits_of_each(x, u)
        x2, u2 = self.branch2.logits_of_each(x, u)
        supervised = self.supervised(x1, target) + self.supervised(x2, target)
        if self.config.mean == "joint":
            cps = cross_supervision(torch.cat([x1, u1]), torch.cat([x2, u2]), target.shape[-2:])
        else:
            cps = cross_supervision(x1, x2, target.shape[-2:]) + cross_supervision(u1, u2, target.shape[-2:])
        return self.summed({"supervised": supervised, "cps": cps})

    def pseudo_labels(self, batch: Batch[Plain]) -> PseudoLabels:
        x, u = batch.labeled.image, batch.unlabeled.image
        _, one = self.branch1.logits_of_each(x, u)
        _, other = self.branch2.logits_of_each(x, u)
        return PseudoLabels({"window": u}, self.label(one), other=self.label(other))

    def predictor(self) -> Network:
        return self.branch1


def cross_supervision(logits1: Tensor, logits2: Tensor, size: torch.Size) -> Tensor:
    """CE(p1, argmax p2) + CE(p2, argmax p1), means over all pixels; logits (B, C, h, w), `size` that of the crops."""
    label1, _ = pseudo_label(logits1.detach(), size, confidence=False)
    label2, _ = pseudo_label(logits2.detach(), size, confidence=False)
    return upsample_cross_entropy(logits1, label2) + upsample_cross_entropy(logits2, label1)
