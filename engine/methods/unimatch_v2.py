"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation (Yang et al., TPAMI 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...pipelines.batch import Batch, WeakStrong
from ...pipelines.views import ViewSpec
from .consistency import Consistency, ConsistencyConfig
from .ema import Teacher
from .programs import PROGRAMS


@dataclass(kw_only=True, slots=True)
class UniMatchV2Config(ConsistencyConfig):
    """Consistency of two strong views, of which each has the features that the other lacks, with a teacher."""

    kept: float = 0.5
    """Share of the image pairs, rounded down, that keep all their features."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from ConsistencyConfig.faults(self)
        yield from self.bounded("kept", 0, 1)


class UniMatchV2(Consistency):
    """Two strong views, each mixed with a partner's, learn the confident labels of an EMA teacher of the weak view.

    loss = supervised_weight CE(f(x), y) + strong_weight mean over v of CE(z_v, mix(label(weak)))
    z_1, z_2 = decode(m encode(mix(strong_1))), decode((2 - m) encode(mix(strong_2))),  m = 0 or 2 for each channel
    """

    name = "unimatch_v2"
    config_class = UniMatchV2Config
    config: UniMatchV2Config
    teacher: Teacher
    steady = True
    views = ViewSpec(unlabeled="weak_strong", strong=2)
    terms: ClassVar = {"supervised": "supervised_weight", "strong": "strong_weight"}

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        return {
            "method.best": "student",
            "sampling.cutmix_partner": "reversed",
            "sampling.labeled_order": "repeated",
            "schedule": "poly_late",
            "emulate_processes": PROGRAMS["unimatch_v2"].processes_on(layout),
        }

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        u = batch.unlabeled
        own, partners = self.with_partners(self.teacher(u.weak), u)
        strong = torch.cat(self.mixed_views(u))
        maps, maps_of_strong = self.student.encode_of_each(batch.labeled.image, strong)
        features = self.student.decode_of_each(maps, self.complementary(maps_of_strong))
        logits, of_strong = map(self.student.classify, features)
        supervised = self.supervised(logits, batch.labeled.target)
        return self.summed({"supervised": supervised, "strong": self.strong_loss(of_strong.chunk(2), own, partners, u)})

    def complementary(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps of the first and then the second views (2 B, …) of B images: each channel is dropped from one of the two
        and doubled in the other. Some pairs, drawn anew, keep all."""
        pairs, device = len(maps[0]) // 2, maps[0].device
        keep = self.drawn(partial(self.keeping, device=device), pairs)[:, None]
        # All maps of as many channels, such as a transformer's, lose the same ones.
        masks = {}
        for channels in dict.fromkeys(one.shape[1] for one in maps):

            def draw(count: int, channels: int = channels) -> Tensor:
                return torch.randint(2, (count, channels), device=device)

            mask = 2.0 * self.drawn(draw, pairs)
            masks[channels] = torch.where(keep, 1.0, torch.stack([mask, 2 - mask])).flatten(0, 1)[..., None, None]
        return tuple(one * masks[one.shape[1]].to(one.dtype) for one in maps)

    def keeping(self, pairs: int, device: torch.device) -> Tensor:
        """(B,) bool: the pairs that keep all features, as many in each part of the batch."""
        of_part = pairs // self.emulate_processes
        order = torch.rand(self.emulate_processes, of_part, device=device).argsort(1)
        return (order < int(of_part * self.config.kept)).flatten()
