"""U2PL: Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels (Wang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import mixed_pseudo_label, upsample, upsample_cross_entropy
from ...pipelines.batch import IGNORE, Batch, WeakStrong
from ...pipelines.errors import fault_unless
from ...pipelines.views import ViewSpec
from ..distributed import first_ones, gathered, total
from ..processes import rank
from .class_bank import ClassBank
from .consistency import Mixing, inside, shown_in_mixed
from .ema import Teacher, TeacherConfig, TeacherMethod
from .method import MethodContext, PseudoLabels
from .positions import at_positions, by_class, evenly, nth, of_classes, rows, rows_here, wide
from .programs import PROGRAMS

FRESH = 1024
"""Of the features that a class's bank may take from a batch, so many enter it, evenly spaced over the batch."""
NONE, MEMBER, ANCHOR = range(3)
"""What a position is to a class."""


@dataclass(kw_only=True, slots=True)
class U2plConfig(TeacherConfig):
    """Reliable pseudo-labels are learnt; unreliable ones say what a pixel is not."""

    weight: float = 1.0
    """Weight of the pseudo-labels' term, which is a mean over the reliable pixels, divided by their share."""
    contrastive_weight: float = 1.0
    """Weight of the contrastive term."""
    start: float = 1 / 80
    """Share of the schedule after which the terms of unlabelled images count (published: from epoch 1 of 80)."""
    teacher_start: float = 2 / 80
    """Share of the schedule up to which the teacher is the student itself (published: epoch 2 of 80)."""
    unreliable: float = 0.2
    """Share of the pixels, those of the highest entropy, that are unreliable at the start of the schedule; it falls to
    0, linearly. As large a share, of the lowest entropy, is reliable enough for anchors, or all others if they are
    fewer."""
    anchors: int = 256
    """Features of each class that are contrasted at a step, drawn."""
    confidence: float = 0.3
    """An anchor's class must be more probable than this."""
    negatives: int = 50
    """Features of other classes for each anchor, drawn from its class's bank."""
    temperature: float = 0.5
    """Divides the cosine similarities."""
    low_rank: int = 3
    """From this place on in the order of its probabilities, counted from 0, an unreliable pixel is not of a class; half
    the number of classes if that is less."""
    high_rank: int = 20
    """Up to this place: of classes that are less probable still, a pixel tells little."""
    bank: int = 30_000
    """Features that a class's bank holds."""
    negatives_labeled: Literal["otherwise", "alike"] = "otherwise"
    """Which unreliable pixels a class's bank takes. otherwise: whatever their labels are, as in the paper; alike: those
    alone that are labelled as that class (U2PL's program)."""
    contrasted: Literal["each", "first"] = "each"
    """Which images of the batch the contrastive term takes. each: all; first: the first labelled and the first mixed
    one, and for their labels those of all images, pixel by pixel, ignored ones as class 0 (U2PL's program)."""
    banks: Literal["own", "shifted"] = "own"
    """own: the anchors of a class meet its bank; shifted: where classes are absent from a batch, those of class i meet
    the bank of the i-th class that is present (U2PL's program)."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from TeacherConfig.faults(self)
        for name in ("start", "teacher_start", "unreliable", "confidence"):
            yield from self.bounded(name, 0, 1)
        for name in ("anchors", "negatives", "low_rank", "bank"):
            yield from self.bounded(name, 1)
        yield from self.bounded("temperature", 0.001)
        rule = f"must be more than --method.low-rank, {self.low_rank}"
        yield from fault_unless(self.high_rank > self.low_rank, "--method.high-rank", rule, self.high_rank)


class U2pl(Mixing, TeacherMethod):
    """On images that are mixed, the student learns a teacher's labels where the teacher is sure. Where it is not, its
    features stand in the banks of the classes that they hardly are of, and repel these classes' anchors.

    loss = CE(f(x), y) + weight (pixels / reliable pixels) CE(f(mix(u)), mix(label g(u))) + contrastive_weight mean over
    classes and anchors of -log(exp(s(a, p) / T) / (exp(s(a, p) / T) + sum over n of exp(s(a, n) / T))),
    s the cosine, a a feature of the student, p the mean of the teacher's of that class, n one of the class's bank
    """

    name = "u2pl"
    config_class = U2plConfig
    config: U2plConfig
    teacher: Teacher
    views = ViewSpec(unlabeled="weak_strong", strong=1, cutmix="halves")
    terms: ClassVar = {"pseudo": "weight", "contrastive": "contrastive_weight"}
    unreliable: Tensor

    def __init__(self, config: U2plConfig, context: MethodContext):
        super().__init__(config, context, projector=True)
        self.classes = context.classes
        self.parts = max(context.emulate_processes // context.processes, 1)
        self.rank = rank() if context.processes > 1 else 0
        self.bank = ClassBank(context.classes, config.bank, self.student.projection)
        self.register_buffer("unreliable", torch.zeros(()), persistent=False)

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        program = PROGRAMS["u2pl"]
        protocol = program.protocol_on(layout)  # in windows as recipes do anyway
        return ({} if protocol == "slide" else {"evaluation.protocol": protocol}) | {
            "network": "u2pl",
            "method.ema_buffers": "own",
            "method.negatives_labeled": "alike",
            "method.contrasted": "first",
            "method.banks": "shifted",
            "sampling.labeled_order": "cut",
            "labeled.void": "first_class",
            "labeled.padding": "centre",
            "unlabeled.padding": "centre",
            "emulate_processes": program.processes_on(layout),
        }

    @property
    def start(self) -> float:
        return self.config.start

    def phase(self, progress: float) -> bool:
        """Whether the terms of unlabelled images count."""
        return progress >= self.start

    def before_step(self, step: int, progress: float) -> None:
        super().before_step(step, progress)
        if progress < self.config.teacher_start:
            self.teacher.keep.zero_()
        self.unreliable.fill_(self.config.unreliable * (1 - progress))

    def losses(self, batch: Batch[WeakStrong], progress: float) -> dict[str, Tensor]:
        x, target, u = batch.labeled.image, batch.labeled.target, batch.unlabeled
        if not self.phase(progress):
            if self.config.ema_buffers == "own":
                self.teacher(x)  # its statistics are those of its own passes
            return self.summed({"supervised": self.supervised(self.student(x), target)})
        label = self.mixed_label(u)
        windows, sizes = torch.cat([x, self.mixed_view(u, 0)]), [len(x), len(label)]
        taught, probability, entropy = self.teach(windows, len(label))
        certain, uncertain = self.certainty(entropy, label)

        features = self.student.features(windows)
        logits, of_mixed = self.student.classify(features).split(sizes)
        supervised = self.supervised(logits, target)
        pseudo = self.mean_of_processes(self.pseudo_loss, of_mixed, label, uncertain)

        role, negative = self.roles(target, label, probability, certain, uncertain)
        self.remember(taught, negative, sizes)
        maps = [part for each in (self.student.project(features), taught, role) for part in each.split(sizes)]
        contrastive = self.mean_of_processes(self.contrast, *maps, self.draws(windows.device))
        return self.summed({"supervised": supervised, "pseudo": pseudo, "contrastive": contrastive})

    def mixed_label(self, u: WeakStrong) -> Tensor:
        """(B, S, S) uint8: the teacher's labels of the weak views, mixed as the strong ones; 255 where padding is."""
        size = (self.crop, self.crop)
        label, _ = mixed_pseudo_label(*self.with_partners(self.judged(u.weak), u), u.boxes[0], size, confidence=False)
        return label.masked_fill(~shown_in_mixed(*self.with_partners(u.valid, u), u.boxes[0], size), IGNORE)

    def judged(self, windows: Tensor) -> Tensor:
        """Logits (N, C, h, w) of the teacher in evaluation mode, whatever its statistics are."""
        self.teacher.eval()
        logits = self.teacher(windows)
        self.teacher.train()
        return logits

    @torch.no_grad()
    def teach(self, windows: Tensor, mixed: int) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's features (N, D, h, w) of windows (N, 3, S, S), its probabilities (N, C, h, w), and the entropy
        (B, S, S) of the last `mixed` ones."""
        features = self.teacher.network.features(windows)
        logits = wide(self.teacher.network.classify(features))
        entropy = entropy_of(logits[-mixed:], (self.crop, self.crop))
        return self.teacher.network.project(features), logits.softmax(1), entropy

    def certainty(self, entropy: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S) bool each: pixels that are reliable enough for anchors, and unreliable ones; neither is padding."""
        counted = label != IGNORE
        values, counts = (self.gathered(each).view(self.parts, -1) for each in (entropy, counted))
        reliable = 1 - self.unreliable
        bounds = quantiles(values, counts, torch.stack([torch.minimum(self.unreliable, reliable), reliable]))
        low, high = bounds.repeat_interleave(len(label) // self.parts, 0)[..., None, None].unbind(1)
        return counted & (entropy <= low), counted & (entropy >= high)

    def pseudo_loss(self, logits: Tensor, label: Tensor, uncertain: Tensor) -> Tensor:
        """Logits (B, C, h, w) learn labels (B, S, S) where they are reliable: the mean, divided by the share of these
        among the pixels that show an image."""
        target = label.masked_fill(uncertain, IGNORE)
        kept, shown = ((each != IGNORE).sum() for each in (target, label))
        loss = self.weighed(upsample_cross_entropy(logits, target), kept)
        if self.shares_mean:
            kept, shown = total(kept), total(shown)
        return loss * (shown.to(loss.dtype) / kept.clamp(min=1))

    def roles(
        self, target: Tensor, label: Tensor, probability: Tensor, certain: Tensor, uncertain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) each, of labelled and then of mixed windows, which have targets and labels (B, S, S): what a
        position is to a class, uint8, and whether it is a negative of it, bool."""
        height, width = probability.shape[2:]
        at = partial(at_positions, size=(height, width))
        known, certain, uncertain = at(target), at(certain), at(uncertain)
        true, guessed = self.classes_at(known), self.classes_at(at(label))
        member = torch.cat([true, guessed & certain])
        anchor = member & (probability > self.config.confidence)

        order = probability.argsort(dim=1, descending=True, stable=True)
        place, place_of_mixed = order.argsort(1).split([len(true), len(guessed)])
        low = min(self.config.low_rank, self.classes // 2)
        mistaken = (known != IGNORE) & ~true & (place < low)
        unlikely = uncertain & (place_of_mixed >= low) & (place_of_mixed < self.config.high_rank)
        if self.config.negatives_labeled == "alike":
            mistaken, unlikely = mistaken & true, unlikely & guessed
        return member.byte() + anchor.byte(), torch.cat([mistaken, unlikely])

    def classes_at(self, label: Tensor) -> Tensor:
        """Labels (B, 1, h, w) -> (B, C, h, w) bool: the classes that each position has."""
        if self.config.contrasted == "each":
            return of_classes(label, self.classes)
        void = label == IGNORE
        by_part = of_classes(label.masked_fill(void, 0), self.classes).unflatten(0, (self.parts, -1))
        first, others = by_part.any(1, keepdim=True), torch.zeros_like(by_part[:, 1:])
        return torch.cat([first, others], 1).flatten(0, 1) & ~void

    def remember(self, taught: Tensor, negative: Tensor, sizes: list[int]) -> None:
        """The banks take the teacher's features (N, D, h, w) of negatives (N, C, h, w), those of all processes."""
        everyones = [gathered(each) if self.processes > 1 else each for each in negative.split(sizes)]
        mask = torch.cat([by_class(each) for each in everyones], 1)
        count, most = mask.sum(1), min(FRESH, self.config.bank)
        feature = rows(taught)
        labeled, mixed = (size * len(feature) // len(taught) for size in sizes)
        row, mine = rows_here(nth(mask, evenly(count, most)), labeled, mixed, self.processes, self.rank)
        fresh = F.normalize(feature[row], dim=2) * mine[..., None]
        self.bank.push(total(fresh) if self.processes > 1 else fresh, count.clamp(max=most))

    def contrast(
        self,
        feature: Tensor,
        feature_of_mixed: Tensor,
        taught: Tensor,
        taught_of_mixed: Tensor,
        role: Tensor,
        role_of_mixed: Tensor,
        draws: Tensor,
    ) -> Tensor:
        """Features of the student and of the teacher (B, D, h, w) and roles (B, C, h, w), of labelled and of mixed
        windows -> the mean over classes and anchors; 0 where a single class is present. draws: (1, C, A, 1 + K)."""
        own, its = (torch.cat([rows(x), rows(u)]) for x, u in ((feature, feature_of_mixed), (taught, taught_of_mixed)))
        member = torch.cat([by_class(role), by_class(role_of_mixed)], 1) >= MEMBER
        anchor = torch.cat([by_class(self.gathered(each)) for each in (role, role_of_mixed)], 1) == ANCHOR
        world, number = (self.processes, self.rank) if self.shares_mean else (1, 0)
        labeled = role[:, 0].numel()
        with torch.autocast(own.device.type, enabled=False):
            positive, members = member.to(its.dtype) @ its, member.sum(1)
            if self.shares_mean:
                positive, members = total(positive), total(members)
            present, bank = members > 0, torch.arange(self.classes, device=members.device)
            active = present
            if self.config.banks == "shifted":
                active = bank < present.sum()
                bank = (~present).byte().argsort(stable=True)
            active = active & (self.bank.held[bank] > 0) & (present.sum() > 1)

            place = nth(anchor, draws[0, ..., 0] * anchor.sum(1, keepdim=True))
            row, mine = rows_here(place, labeled, len(own) - labeled, world, number)
            anchors = F.normalize(own[row], dim=2)
            alike = torch.einsum("cad,cd->ca", anchors, F.normalize(positive, dim=1))
            unlike = torch.einsum("cad,cakd->cak", anchors, self.bank.drawn(draws[0, ..., 1:], bank).to(anchors.dtype))
            similarity = torch.cat([alike[..., None], unlike], 2) / self.config.temperature
            loss = (similarity.logsumexp(2) - similarity[..., 0]) * (mine & active[:, None])
            mean = loss.sum() / (self.config.anchors * present.sum().clamp(min=1))
        return world * mean

    def draws(self, device: torch.device) -> Tensor:
        """(P, C, A, 1 + K) in [0, 1): for each part of the batch, which anchors are taken, and which negatives."""

        def draw(parts: int) -> Tensor:
            return torch.rand(parts, self.classes, self.config.anchors, 1 + self.config.negatives, device=device)

        return first_ones(draw(1)) if self.shares_mean else self.drawn(draw, self.parts)

    def pseudo_labels(self, batch: Batch[WeakStrong]) -> PseudoLabels:
        """The teacher's labels of the weak views; unreliable ones are not kept."""
        u = batch.unlabeled
        weak = u.trained_on(u.weak)
        logits = wide(self.judged(weak))
        label = self.label(logits)
        shown = inside(u.trained_on(u.valid), (self.crop, self.crop))
        entropy = entropy_of(logits, (self.crop, self.crop))
        _, uncertain = self.certainty(entropy, label.masked_fill(~shown, IGNORE))
        views = {"weak": weak, "mixed": self.mixed_view(u, 0)}
        return PseudoLabels(views, label, kept=shown & ~uncertain, other=self.students_labels(weak))


def entropy_of(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, *size) in nats: the entropies of the probabilities of logits (B, C, h, w), upsampled; one image at a time, as
    logits of full size are large."""
    return torch.cat([torch.special.entr(upsample(each[None], size).softmax(1)).sum(1) for each in logits])


def quantiles(values: Tensor, counted: Tensor, shares: Tensor) -> Tensor:
    """(P, k): of each row of values (P, n) the quantiles at `shares` (k,), in [0, 1], of those that are counted (P, n)
    bool, linear between neighbours as NumPy's; NaN where none is."""
    ordered = values.masked_fill(~counted, torch.inf).sort(1).values
    place = (counted.sum(1, keepdim=True) - 1) * shares.double()
    low, high = (ordered.gather(1, end.long().clamp(min=0)) for end in (place.floor(), place.ceil()))
    return torch.lerp(low, high, (place - place.floor()).to(low.dtype))
