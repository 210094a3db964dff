"""CPS with CutMix augmentation (Chen et al., CVPR 2021, section 4.4; masks of French et al., BMVC 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...kernels import cutmix, mixed_pseudo_label, upsample_cross_entropy
from ...pipelines.batch import Batch, Mixed
from ...pipelines.views import ViewSpec
from ..models import Network
from .method import Method, MethodConfig, MethodContext, PseudoLabels
from .programs import cps_switches


@dataclass(kw_only=True, slots=True)
class CutMixCpsConfig(MethodConfig):
    """Cross pseudo supervision on mixed images."""

    weight: float = 1.0
    """Weight of the cross pseudo supervision."""


class CutMixCps(Method):
    """Each network labels both images; the other learns these labels, mixed as the images are, on the mixed image.

    loss = CE(f1(x), y) + CE(f2(x), y) + weight (CE(f1(m), mix argmax f2) + CE(f2(m), mix argmax f1)),  m = mix(u, v)
    """

    name = "cutmix_cps"
    config_class = CutMixCpsConfig
    config: CutMixCpsConfig
    steady = True
    views = ViewSpec(unlabeled="mixed")
    terms: ClassVar = {"cps": "weight"}

    def __init__(self, config: CutMixCpsConfig, context: MethodContext):
        super().__init__(config, context)
        self.branch1 = context.network()
        self.branch2 = context.network()

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return cps_switches(layout) | {"sampling.cutmix_partner": "same", "sampling.repeat_boxes": True}

    def losses(self, batch: Batch[Mixed], progress: float) -> dict[str, Tensor]:
        x, target = batch.labeled.image, batch.labeled.target
        u, v, boxes = batch.unlabeled.image1, batch.unlabeled.image2, batch.unlabeled.boxes
        mixed = cutmix(u, v, boxes)
        # Teachers stay in training mode, as published: batch statistics of u and of v, and running ones updated.
        with torch.no_grad():
            label1, label2 = (
                mixed_pseudo_label(of_u, of_v, boxes, target.shape[-2:], confidence=False)[0]
                for of_u, of_v in (branch.logits_of_each(u, v) for branch in (self.branch1, self.branch2))
            )
        mixed1, x1 = self.branch1.logits_of_each(mixed, x)
        mixed2, x2 = self.branch2.logits_of_each(mixed, x)
        cps = upsample_cross_entropy(mixed1, label2) + upsample_cross_entropy(mixed2, label1)
        supervised = self.supervised(x1, target) + self.supervised(x2, target)
        return self.summed({"supervised": supervised, "cps": cps})

    def pseudo_labels(self, batch: Batch[Mixed]) -> PseudoLabels:
        u, v = batch.unlabeled.image1, batch.unlabeled.image2
        one, other = (
            torch.cat([self.label(logits) for logits in branch.logits_of_each(u, v)])
            for branch in (self.branch1, self.branch2)
        )
        mixed = cutmix(u, v, batch.unlabeled.boxes)
        return PseudoLabels({"window": u, "partner": v, "mixed": mixed}, one, other=other)

    def predictor(self) -> Network:
        return self.branch1
