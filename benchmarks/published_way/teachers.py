"""Programs with an averaged teacher: Mean Teacher as CPS's has it, and CutMix-Seg's."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from semiseg.engine.recipe import Recipe

from .images import WeakStrong
from .way import PublishedWay, cross_entropy


class Taught(PublishedWay):
    """A student, and a teacher that is never trained."""

    branches = ("student",)

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__(recipe, classes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def average(self, own: Iterable[Tensor], its: Iterable[Tensor], kept: float | None = None) -> None:
        """The teacher's tensors follow the student's, one by one. kept: how much of itself is left."""
        kept = self.config.ema if kept is None else kept
        with torch.no_grad():
            for mean, value in zip(own, its, strict=True):
                if mean.is_floating_point():
                    mean.mul_(kept).add_(value * (1 - kept))


class Followed(Taught):
    """A teacher in evaluation mode, which is the student after the first step; all of its state follows."""

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__(recipe, classes)
        self.teacher.eval()
        self.steps = 0

    def after_step(self) -> None:
        self.steps += 1
        kept = min(1 - 1 / self.steps, self.config.ema)
        self.average(self.teacher.state_dict().values(), self.student.state_dict().values(), kept)


class MeanTeacher(Taught):
    """The teacher's batch statistics are of its own passes. It is not asked about labelled images, as ours is not."""

    streams = (WeakStrong,)

    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], *partners: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """`partners`, which batches of ours name for every method of their views, are mixed in nowhere."""
        weak, strong, shown, _ = images
        supervised = cross_entropy(self.full(self.student, x), target)
        with torch.no_grad():
            wanted = self.full(self.teacher, weak).softmax(1)
        errors = (self.full(self.student, strong[:, 0]).softmax(1) - wanted) ** 2
        consistency = (errors.mean(1) * shown).sum() / shown.sum()
        return {
            "loss": supervised + self.config.weight * consistency,
            "supervised": supervised,
            "consistency": consistency,
        }

    def after_step(self) -> None:
        self.average(self.teacher.parameters(), self.student.parameters())


class CutMixSeg(Taught):
    """The images of two loaders, mixed; the teacher, in evaluation mode, labels either in a call of its own."""

    streams = (WeakStrong, WeakStrong)

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__(recipe, classes)
        self.teacher.eval()

    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], partners: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        (weak, strong, shown, boxes), (weak2, strong2, shown2, _) = images, partners
        mask = boxes[:, :1]
        supervised = cross_entropy(self.full(self.student, x), target)
        with torch.no_grad():
            logits, logits2 = self.full(self.teacher, weak), self.full(self.teacher, weak2)
            wanted = (logits * (1 - mask) + logits2 * mask).softmax(1)
            confident = (wanted.max(1).values >= self.config.threshold).float().mean()
        mixed = strong[:, 0] * (1 - mask) + strong2[:, 0] * mask
        shown = (shown[:, None] * (1 - mask) + shown2[:, None] * mask)[:, 0]
        errors = ((self.full(self.student, mixed).softmax(1) - wanted) ** 2).sum(1)
        consistency = (errors * shown * confident).mean()
        return {
            "loss": supervised + self.config.weight * consistency,
            "supervised": supervised,
            "consistency": consistency,
        }

    def after_step(self) -> None:
        self.average(self.teacher.state_dict().values(), self.student.state_dict().values())
