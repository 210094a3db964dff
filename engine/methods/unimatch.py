"""UniMatch: Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (Yang et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipelines.batch import Batch, WeakStrong
from ...pipelines.views import ViewSpec
from .consistency import Consistency, ConsistencyConfig, Labels
from .programs import unimatch_switches

DROPPED = 0.5
"""Share of the channels that the perturbation drops."""


@dataclass(kw_only=True, slots=True)
class UniMatchConfig(ConsistencyConfig):
    """Consistency of two strong views and of perturbed features with a weak view."""

    strong_weight: float = 0.25
    """Weight of the mean of the two strong views' terms."""
    perturbed_weight: float = 0.25
    """Weight of the term of perturbed features."""
    labels: Labels = "training"
    """Whose labels the others learn. training: the network's own, of its pass of labelled and weak windows; evaluation:
    its own, of a pass in evaluation mode; mixed: the former outside of the boxes and the latter inside (published);
    teacher: those of an EMA teacher (as UniMatch V2)."""
    perturbed_statistics: Literal["own", "shared"] = "own"
    """Batch statistics of the decoder on perturbed features. own: theirs, or those of all of a step with
    --batch-statistics joint; shared: one batch of them and the clean ones, for which the labelled windows' are
    perturbed too (published)."""


class UniMatch(Consistency):
    """Two strong views, each mixed with a partner's, and the decoder on perturbed features of the weak view learn the
    confident labels of the weak view.

    loss = supervised_weight CE(f(x), y)
         + strong_weight mean over v of CE(f(mix(strong_v)), mix(label(weak)))
         + perturbed_weight CE(decode(drop(encode(weak))), label(weak))
    """

    name = "unimatch"
    config_class = UniMatchConfig
    config: UniMatchConfig
    steady = True
    views = ViewSpec(unlabeled="weak_strong", strong=2)
    terms: ClassVar = {
        "supervised": "supervised_weight",
        "strong": "strong_weight",
        "perturbed": "perturbed_weight",
    }

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return unimatch_switches(layout) | {"method.perturbed_statistics": "shared"}

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        u = batch.unlabeled
        evaluated = self.evaluated(u)
        logits, weak, perturbed, *strong = self.logits_of_views(batch.labeled.image, u)
        own, partners = self.label_logits(weak, evaluated, u)
        return self.summed(
            {
                "supervised": self.supervised(logits, batch.labeled.target),
                "strong": self.strong_loss(strong, own, partners, u),
                "perturbed": self.weak_loss(perturbed, own, u),
            }
        )

    def logits_of_views(self, x: Tensor, u: WeakStrong) -> tuple[Tensor, ...]:
        """(B, C, h, w) each: of labelled and of weak windows, which the network sees together; of the weak ones'
        features with half of their channels dropped; and of either strong view."""
        network, weak = self.student, u.trained_on(u.weak)
        sizes = len(x), len(weak)
        strong = torch.cat(self.mixed_views(u))
        maps, maps_of_strong = network.encode_of_each(torch.cat([x, weak]), strong)
        if self.config.perturbed_statistics == "shared":
            both = tuple(torch.cat([clean, self.drop_channels(clean, *sizes)]) for clean in maps)
            shared, strong = map(network.classify, network.decode_of_each(both, maps_of_strong))
            clean, _, perturbed = shared.split([sum(sizes), *sizes])
        else:
            dropped = tuple(self.drop_channels(clean[len(x) :], len(weak)) for clean in maps)
            clean, perturbed, strong = map(network.classify, network.decode_of_each(maps, dropped, maps_of_strong))
        return *clean.split(sizes), perturbed, *strong.chunk(2)

    def drop_channels(self, maps: Tensor, *sizes: int) -> Tensor:
        """Features (B, C, h, w), groups of so many images, of which each image loses half of the channels, the others
        twice as large."""
        kept = self.drawn(lambda count: F.dropout2d(maps.new_ones(count, maps.shape[1], 1, 1), DROPPED), *sizes)
        return maps * kept
