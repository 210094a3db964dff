"""FixMatch for segmentation (Sohn et al., NeurIPS 2020), as it stands in the programs of UniMatch and UniMatch V2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...pipelines.batch import Batch, WeakStrong
from ...pipelines.views import ViewSpec
from .consistency import Consistency, ConsistencyConfig, Labels
from .programs import unimatch_switches


@dataclass(kw_only=True, slots=True)
class FixMatchConfig(ConsistencyConfig):
    """Consistency of a strong view with a weak one."""

    labels: Labels = "training"
    """Whose labels the strong view learns. training: the network's own, of its pass of labelled and weak windows;
    evaluation: its own, of a pass in evaluation mode; mixed: the former outside of the boxes and the latter inside
    (UniMatch's program); teacher: those of an EMA teacher, labelled and strong windows being one batch to the
    network (UniMatch V2's program)."""


class FixMatch(Consistency):
    """A strong view, mixed with a partner's, learns the confident labels of the weak views, mixed alike.

    loss = supervised_weight CE(f(x), y) + strong_weight CE(f(mix(strong)), mix(label(weak)))
    """

    name = "fixmatch"
    config_class = FixMatchConfig
    config: FixMatchConfig
    steady = True
    views = ViewSpec(unlabeled="weak_strong", strong=1)
    terms: ClassVar = {"supervised": "supervised_weight", "strong": "strong_weight"}

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return unimatch_switches(layout)

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        x, target, u = batch.labeled.image, batch.labeled.target, batch.unlabeled
        if self.teacher:
            own, partners = self.with_partners(self.teacher(u.weak), u)
            logits, strong = self.student(torch.cat([x, *self.mixed_views(u)])).split([len(x), len(u.partner)])
        else:
            evaluated = self.evaluated(u)
            logits, weak, strong = self.logits_of_views(x, u)
            own, partners = self.label_logits(weak, evaluated, u)
        supervised = self.supervised(logits, target)
        return self.summed({"supervised": supervised, "strong": self.strong_loss([strong], own, partners, u)})

    def logits_of_views(self, x: Tensor, u: WeakStrong) -> tuple[Tensor, ...]:
        """(B, C, h, w) each: of labelled and of weak windows, which the network sees together, and of the strong
        view, which may share their statistics."""
        clean = torch.cat([x, u.trained_on(u.weak)])
        clean, strong = self.student.logits_of_each(clean, *self.mixed_views(u))
        return *clean.split([len(x), len(u.partner)]), strong
