"""CPS: Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (Chen et al., CVPR 2021), section 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...kernels import pseudo_label, upsample_cross_entropy
from ...pipelines.batch import Batch, Plain
from ...pipelines.views import ViewSpec
from ..models import Network
from .method import Method, MethodConfig, PseudoLabels, Setting
from .programs import PROGRAMS


def published_switches(layout: str) -> dict[str, Any]:
    """What TorchSemiSeg does otherwise with and without CutMix, see docs/fidelity.md."""
    program = PROGRAMS["cps"]
    return {
        "network": "cps",
        "evaluation.protocol": program.protocol_on(layout),
        "sampling.unlabeled_order": "repeated",
        "sampling.labeled_order": "redrawn",
        "labeled.crop_off_by_one": True,
        "labeled.padding": "centre",
        "unlabeled.crop_off_by_one": True,
        "unlabeled.padding": "centre",
        "emulate_processes": program.processes_on(layout),
    }


@dataclass(kw_only=True, slots=True)
class CpsConfig(MethodConfig):
    """Cross pseudo supervision."""

    weight: float = 1.5
    """Weight of the cross pseudo supervision."""
    threshold: float = 0.0
    """Labels count where the network that gives them gives them at least this probability; 0: all do, as published."""
    mean: Literal["joint", "separate"] = "joint"
    """joint: one mean over labelled and unlabelled pixels, as the published program; separate: the sum of the mean of
    either, as the paper writes it, twice as much for batches of equal size."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from MethodConfig.faults(self)
        yield from self.bounded("threshold", 0, 1)


class Cps(Method):
    """Two networks that differ by their random heads; each learns the other's labels on all images.

    loss = CE(f1(x), y) + CE(f2(x), y) + weight (CE(p1, argmax p2) + CE(p2, argmax p1)),  p = f(x) and f(u) together
    """

    name = "cps"
    config_class = CpsConfig
    steady = True
    views = ViewSpec(unlabeled="plain")
    terms: ClassVar = {"cps": "weight"}

    def __init__(self, config: CpsConfig, setting: Setting):
        super().__init__(config, setting)
        self.branch1 = setting.network()
        self.branch2 = setting.network()

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return published_switches(layout)

    def losses(self, batch: Batch[Plain], progress: float) -> dict[str, Tensor]:
        x, target, u = batch.labeled.image, batch.labeled.target, batch.unlabeled.image
        # Batch statistics of labelled and unlabelled images never mix.
        x1, u1 = self.branch1.logits_of_each(x, u)
        x2, u2 = self.branch2.logits_of_each(x, u)
        supervised = self.supervised(x1, target) + self.supervised(x2, target)
        if self.config.mean == "joint":
            cps = self.cross_supervision(torch.cat([x1, u1]), torch.cat([x2, u2]))
        else:
            cps = self.cross_supervision(x1, x2) + self.cross_supervision(u1, u2)
        return self.summed({"supervised": supervised, "cps": cps})

    def cross_supervision(self, logits1: Tensor, logits2: Tensor) -> Tensor:
        """CE(p1, argmax p2) + CE(p2, argmax p1), means over all pixels; logits (B, C, h, w)."""
        size, threshold = (self.crop, self.crop), self.config.threshold
        label1, sure1 = pseudo_label(logits1.detach(), size, confidence=threshold > 0)
        label2, sure2 = pseudo_label(logits2.detach(), size, confidence=threshold > 0)
        return learnt(logits1, label2, sure2, threshold) + learnt(logits2, label1, sure1, threshold)

    def pseudo_labels(self, batch: Batch[Plain]) -> PseudoLabels:
        u = batch.unlabeled.image
        label, sure = pseudo_label(self.branch1(u), (self.crop, self.crop))
        kept = sure >= self.config.threshold if self.config.threshold else None
        return PseudoLabels({"window": u}, label, kept, other=self.label(self.branch2(u)))

    def predictor(self) -> Network:
        return self.branch1


def learnt(logits: Tensor, label: Tensor, sure: Tensor | None, threshold: float) -> Tensor:
    """CE(p, label), a mean over all pixels, of which those count that the other network is sure of; logits
    (B, C, h, w), label and probability (B, S, S)."""
    return upsample_cross_entropy(logits, label, pixel_weight=(sure >= threshold).float() if threshold else None)
