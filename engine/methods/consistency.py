"""What FixMatch and its successors share: a strong view of a window learns the confident labels of its weak view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...kernels import box_mask, cutmix, mixed_pseudo_label, pseudo_label, upsample_cross_entropy
from ...pipelines.batch import IGNORE, Batch, WeakStrong
from ..models import evaluating
from .ema import TeacherConfig, TeacherMethod
from .method import Method, MethodContext, PseudoLabels

Labels = Literal["training", "evaluation", "mixed", "teacher"]
"""Whose labels strong views learn. training: those of the network's pass of labelled and weak windows, in training
mode; evaluation: those of a pass of its own in evaluation mode; mixed: the former outside of the boxes and the latter
inside, as UniMatch V1's program; teacher: an EMA teacher's, as UniMatch V2's. Windows that serve as partners alone are
always labelled in evaluation mode."""


@dataclass(kw_only=True, slots=True)
class ConsistencyConfig(TeacherConfig):
    """The settings that the methods of the family share."""

    supervised_weight: float = 0.5
    """Weight of the supervised term."""
    strong_weight: float = 0.5
    """Weight of the mean of the strong views' terms."""
    threshold: float = 0.95
    """Labels that are less confident do not count."""
    ema: float = 0.996
    """How much of itself a teacher keeps at each step; the rest is the network's."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from TeacherConfig.faults(self)
        yield from self.bounded("threshold", 0, 1)


class Mixing(Method):
    """A method whose strong views show their partners' in boxes."""

    def mixed_view(self, u: WeakStrong, view: int) -> Tensor:
        """(B, 3, S, S): a strong view of the windows that are trained on, in its boxes the same of their partners."""
        return cutmix(*self.with_partners(u.strong[view], u), u.boxes[view])

    def with_partners(self, windows: Tensor, u: WeakStrong) -> tuple[Tensor, Tensor]:
        """All windows (N, …), or what is known of them -> those that are trained on, (B, …), and the partner of each,
        (B, …), without gradient."""
        return u.trained_on(windows), self.partners(windows, u)

    def partners(self, windows: Tensor, u: WeakStrong) -> Tensor:
        """Each window's partner, (B, …), among the windows, or among what is known of them, (N, …); no gradient."""
        return self.gathered(windows)[u.partner]


class Consistency(Mixing, TeacherMethod):
    """A method whose strong views learn the labels of weak views, mixed as they are: a teacher's where there is one, or
    the network's own as its setting `labels`, if it has one, says."""

    config: ConsistencyConfig

    def __init__(self, config: Any, context: MethodContext):
        labels: Labels = getattr(config, "labels", "teacher")
        super().__init__(config, context, taught=labels == "teacher")
        self.labels = labels

    def mixed_views(self, u: WeakStrong) -> list[Tensor]:
        """(B, 3, S, S) each: all strong views, mixed."""
        return [self.mixed_view(u, view) for view in range(self.views.strong)]

    def strong_loss(self, logits: Sequence[Tensor], own: Tensor, partners: Tensor, u: WeakStrong) -> Tensor:
        """The mean of the terms of the mixed strong views: the logits (B, C, h, w) of each learn the labels of the
        windows' logits `own` and, inside the boxes, of their partners', both of the weak view and without gradient.

        A term's mean is over the pixels that show an image and not padding, whether their labels are confident or not.
        """

        def part(logits, own, partners, boxes, valid, partners_valid):
            size = (self.crop, self.crop)
            label, confidence = mixed_pseudo_label(own, partners, boxes, size)
            shown = shown_in_mixed(valid, partners_valid, boxes, size)
            return self.of_confident(logits, label, confidence, shown)

        valid = self.with_partners(u.valid, u)
        terms = [
            self.mean_of_processes(part, of_view, own, partners, boxes, *valid)
            for of_view, boxes in zip(logits, u.boxes)
        ]
        return torch.stack(terms).mean()

    def weak_loss(self, logits: Tensor, own: Tensor, u: WeakStrong) -> Tensor:
        """The same of a view that is not mixed."""

        def part(logits, own, valid):
            size = (self.crop, self.crop)
            return self.of_confident(logits, *pseudo_label(own, size), inside(valid, size))

        return self.mean_of_processes(part, logits, own, u.trained_on(u.valid))

    def of_confident(self, logits: Tensor, label: Tensor, confidence: Tensor, shown: Tensor) -> Tensor:
        """Cross-entropy of the pixels (B, S, S) that are shown and confident, divided by how many are shown."""
        target = label.masked_fill(~shown | (confidence < self.config.threshold), IGNORE)
        count = shown.sum()
        return self.weighed(upsample_cross_entropy(logits, target, normalizer=count), count)

    def evaluated(self, u: WeakStrong) -> Tensor | None:
        """Logits (M, C, h, w) without gradient of weak windows that are labelled otherwise than by the pass in training
        mode: a teacher's, or the network's own in evaluation mode; None where there are no such windows. To be asked
        for before that pass, which moves the running statistics.

        All windows, or those behind the first B alone, which serve as partners and have no pass in training mode.
        """
        if self.teacher:
            return self.teacher(u.weak)
        alone = u.weak[len(u.partner) :]
        whole = self.labels == "evaluation" or (self.labels == "mixed" and not len(alone))
        asked = u.weak if whole else alone
        if not len(asked):
            return None
        with evaluating(self.student):
            return self.student(asked)

    def label_logits(self, weak: Tensor, evaluated: Tensor | None, u: WeakStrong) -> tuple[Tensor, Tensor]:
        """Logits (B, C, h, w) that label the windows, and those that label their partners, without gradient: of the
        pass in training mode `weak` (B, C, h, w), and of what was `evaluated` before it."""
        weak = weak.detach()
        if evaluated is None:
            return weak, self.partners(weak, u)
        if self.teacher or self.labels == "evaluation":
            return self.with_partners(evaluated, u)
        alone = len(u.weak) > len(weak)
        return weak, self.partners(torch.cat([weak, evaluated]) if alone else evaluated, u)

    def logits_of_views(self, x: Tensor, u: WeakStrong) -> tuple[Tensor, ...]:
        """(B, C, h, w) each: of labelled windows, of weak ones, and of the views that learn from them."""
        raise NotImplementedError

    def pseudo_labels(self, batch: Batch[WeakStrong]) -> PseudoLabels:
        u = batch.unlabeled
        weak = u.trained_on(u.weak)
        if self.teacher:
            logits = u.trained_on(self.teacher(u.weak))
        else:
            evaluated = self.evaluated(u)
            _, of_weak, *_ = self.logits_of_views(batch.labeled.image, u)
            logits, _ = self.label_logits(of_weak, evaluated, u)
        label, confidence = pseudo_label(logits, (self.crop, self.crop))
        strong = {f"strong {number}, mixed": view for number, view in enumerate(self.mixed_views(u), 1)}
        kept, other = confidence >= self.config.threshold, self.students_labels(weak)
        return PseudoLabels({"weak": weak} | strong, label, kept=kept, other=other)


def inside(rectangles: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 4) int -> (B, *size) bool: which pixels the rectangles hold."""
    return box_mask(rectangles[:, None], size)


def shown_in_mixed(valid: Tensor, partners: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, *size) bool: which pixels of mixed images show an image and not padding, by the valid rectangles (B, 4) of
    the images and, inside the boxes (B, 1, 4), of their partners."""
    return torch.where(box_mask(boxes, size), inside(partners, size), inside(valid, size))
