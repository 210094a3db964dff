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
from ..distributed import gathered, of_first, total
from ..processes import rank
from .class_bank import ClassBank
from .consistency import Mixing, inside, shown_in_mixed
from .ema import Teacher, TeacherConfig, TeacherMethod
from .method import MethodContext, PseudoLabels
from .positions import class_rows, evenly_spaced, local_rows, nearest, nth, one_hot, rows, wide
from .programs import PROGRAMS

FRESH = 1024
"""Of the features that a class's bank may take from a batch, so many enter it, evenly spaced over the batch."""


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
    anchor_threshold: float = 0.3
    """An anchor's class must be more probable to the teacher than this."""
    negatives: int = 50
    """Features of other classes for each anchor, drawn from its class's bank."""
    temperature: float = 0.5
    """Divides the cosine similarities."""
    low_rank: int = 3
    """From this place on in the order of its probabilities, counted from 0, an unreliable pixel is not of a class, and
    before it a labelled pixel is mistaken for one; half the number of classes if that is less."""
    high_rank: int = 20
    """Up to this place: of classes that are less probable still, a pixel tells little."""
    bank_size: int = 30_000
    """Features that a class's bank holds."""
    negative_labels: Literal["any", "own"] = "any"
    """Which labels the pixels have whose features a class's bank takes. any: labelled pixels those of other classes,
    unreliable ones whichever, as in the paper; own: that class, so that labelled pixels never qualify (U2PL's
    program)."""
    contrasted: Literal["each", "first"] = "each"
    """Which images of the batch the contrastive term takes. each: all; first: the first labelled and the first mixed
    one, and for their labels those of all images, pixel by pixel, ignored ones as class 0 (U2PL's program)."""
    bank_pairing: Literal["own", "shifted"] = "own"
    """own: the anchors of a class meet its bank; shifted: where classes are absent from a batch, those of class i meet
    the bank of the i-th class that is present (U2PL's program)."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from TeacherConfig.faults(self)
        for name in ("start", "teacher_start", "anchor_threshold"):
            yield from self.bounded(name, 0, 1)
        rule = "must be in [0, 1): of no reliable pixels nothing is learnt"
        yield from fault_unless(0 <= self.unreliable < 1, "--method.unreliable", rule, self.unreliable)
        for name in ("anchors", "negatives", "low_rank", "bank_size"):
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
    views = ViewSpec(unlabeled="weak_strong", strong=1, cutmix="sometimes_half")
    picked: ClassVar = frozenset({"bank.features"})
    terms: ClassVar = {"pseudo": "weight", "contrastive": "contrastive_weight"}
    unreliable: Tensor

    def __init__(self, config: U2plConfig, context: MethodContext):
        super().__init__(config, context, projector=True)
        self.classes = context.classes
        self.parts = max(context.emulate_processes // context.processes, 1)
        self.rank = rank() if context.processes > 1 else 0
        self.bank = ClassBank(context.classes, config.bank_size, self.student.projection)
        self.register_buffer("unreliable", torch.zeros(()), persistent=False)

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        program = PROGRAMS["u2pl"]
        protocol = program.protocol_on(layout)  # in windows as recipes do anyway
        return ({} if protocol == "slide" else {"evaluation.protocol": protocol}) | {
            "network": "u2pl",
            "method.ema_buffers": "own",
            "method.negative_labels": "own",
            "method.contrasted": "first",
            "method.bank_pairing": "shifted",
            "sampling.labeled_order": "cut",
            "labeled.padding_label": "first_class",
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

        member, anchor, negative = self.roles(target, label, probability, certain, uncertain)
        self.remember(taught, negative, sizes)
        contrasted = (self.student.project(features), taught, member, anchor)
        of_both = (part for maps in contrasted for part in maps.split(sizes))
        contrastive = self.mean_of_processes(self.contrast, self.draws(windows.device), *of_both)
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, h, w) bool each, of labelled and then of mixed windows, which have targets and labels (B, S, S):
        whether a position is a member of a class, one that its anchors are drawn from, and a negative of it."""
        height, width = probability.shape[2:]
        at = partial(nearest, size=(height, width))
        known, certain, uncertain = at(target), at(certain), at(uncertain)
        true, guessed = self.classes_at(known), self.classes_at(at(label))
        member = torch.cat([true, guessed & certain])
        anchor = member & (probability > self.config.anchor_threshold)

        order = probability.argsort(dim=1, descending=True, stable=True).byte()
        place, place_of_mixed = order.argsort(1).byte().split([len(true), len(guessed)])
        low = min(self.config.low_rank, self.classes // 2)
        mistaken = (known != IGNORE) & ~true & (place < low)
        unlikely = uncertain & (place_of_mixed >= low) & (place_of_mixed < self.config.high_rank)
        if self.config.negative_labels == "own":
            mistaken, unlikely = torch.zeros_like(mistaken), unlikely & guessed
        return member, anchor, torch.cat([mistaken, unlikely])

    def classes_at(self, label: Tensor) -> Tensor:
        """Labels (B, 1, h, w) -> (B, C, h, w) bool: the classes that each position has."""
        if self.config.contrasted == "each":
            return one_hot(label, self.classes)
        void = label == IGNORE
        by_part = one_hot(label.masked_fill(void, 0), self.classes).unflatten(0, (self.parts, -1))
        first, others = by_part.any(1, keepdim=True), torch.zeros_like(by_part[:, 1:])
        return torch.cat([first, others], 1).flatten(0, 1) & ~void

    def remember(self, taught: Tensor, negative: Tensor, sizes: list[int]) -> None:
        """The banks take the teacher's features (N, D, h, w) of negatives (N, C, h, w), those of all processes."""
        everyones = [gathered(each) if self.processes > 1 else each for each in negative.split(sizes)]
        mask = torch.cat([class_rows(each) for each in everyones], 1)
        count, most = mask.sum(1), min(FRESH, self.config.bank_size)
        feature = rows(taught)
        labeled, mixed = (size * len(feature) // len(taught) for size in sizes)
        row, mine = local_rows(nth(mask, evenly_spaced(count, most)), labeled, mixed, self.processes, self.rank)
        # Features that overflow, in fp16, are of a step that is left out; a bank would keep them.
        fresh = F.normalize(feature[row], dim=2).nan_to_num(0, 0, 0) * mine[..., None]
        self.bank.push(total(fresh) if self.processes > 1 else fresh, count.clamp(max=most))

    def contrast(self, draws: Tensor, *maps: Tensor) -> Tensor:
        """The mean over classes and anchors; 0 where a single class is present. draws: (1, C, A, 1 + K); maps, of
        labelled and of mixed windows each: the student's and the teacher's features (B, D, h, w), and whose members and
        anchors positions are (B, C, h, w) bool."""
        feature = torch.cat([rows(each) for each in maps[:2]])
        with torch.autocast(feature.device.type, enabled=False):
            pairs = [(rows(taught), class_rows(member)) for taught, member in zip(maps[2:4], maps[4:6], strict=True)]
            summed = torch.stack([member.to(taught.dtype) @ taught for taught, member in pairs]).sum(0)
            counted = torch.stack([member.sum(1) for _, member in pairs]).sum(0)
            positive, members = self.of_all(summed), self.of_all(counted)
            anchors, found = self.drawn_anchors(feature, maps[6], maps[7], draws[0, ..., 0])
            present = members > 0
            bank, paired = self.paired_banks(present)
            negatives = self.bank.drawn(draws[0, ..., 1:], bank).to(anchors.dtype)
            losses = info_nce(anchors, positive, negatives, self.config.temperature)
            active = paired & (self.bank.held[bank] > 0) & (present.sum() > 1)
            mean = (losses * (found & active[:, None])).sum() / (self.config.anchors * present.sum().clamp(min=1))
        return self.processes * mean if self.shares_mean else mean

    def of_all(self, summed: Tensor) -> Tensor:
        """A sum over the batch that one mean is over."""
        return total(summed) if self.shares_mean else summed

    def drawn_anchors(
        self, feature: Tensor, anchor: Tensor, anchor_of_mixed: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(C, A, D): of features (N, D) those of positions that are anchors (B, C, h, w) of each class, one for each
        number of `draws` (C, A); and (C, A) bool, which of them there are in this process."""
        mask = torch.cat([class_rows(self.gathered(each)) for each in (anchor, anchor_of_mixed)], 1)
        place = nth(mask, draws * mask.sum(1, keepdim=True))
        labeled, world = anchor[:, 0].numel(), (self.processes, self.rank) if self.shares_mean else (1, 0)
        row, mine = local_rows(place, labeled, len(feature) - labeled, *world)
        return feature[row], mine

    def paired_banks(self, present: Tensor) -> tuple[Tensor, Tensor]:
        """(C,) each: whose bank the anchors of a class meet, and whether they meet one, where the classes `present`
        (C,) are in the batch."""
        own = torch.arange(self.classes, device=present.device)
        if self.config.bank_pairing == "own":
            return own, present
        return (~present).byte().argsort(stable=True), own < present.sum()

    def draws(self, device: torch.device) -> Tensor:
        """(P, C, A, 1 + K) in [0, 1): for each part of the batch, which anchors are taken, and which negatives."""

        def draw(parts: int) -> Tensor:
            return torch.rand(parts, self.classes, self.config.anchors, 1 + self.config.negatives, device=device)

        return of_first(draw(1)) if self.shares_mean else self.drawn(draw, self.parts)

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


def info_nce(anchors: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """(C, A): of anchors (C, A, D), the positive of each class (C, D) and negatives (C, A, K, D) of unit length,
    -log(exp(s(a, p) / T) / (exp(s(a, p) / T) + sum over n of exp(s(a, n) / T))), s being the cosine."""
    anchors = F.normalize(anchors, dim=2)
    alike = torch.einsum("cad,cd->ca", anchors, F.normalize(positive, dim=1))
    unlike = torch.einsum("cad,cakd->cak", anchors, negatives)
    similarity = torch.cat([alike[..., None], unlike], 2) / temperature
    return similarity.logsumexp(2) - similarity[..., 0]


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
