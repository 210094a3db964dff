"""UniMatch's programs: FixMatch, UniMatch itself, and its second version.

In the first two, two loaders give two windows of unlabelled images; those of the second serve as partners alone, and
are labelled in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import WeakStrong
from .teachers import Followed
from .way import PublishedWay, cross_entropy, upsampled

Labels = tuple[Tensor, Tensor, Tensor]
"""Of pixels (B, S, S): classes, confidences, and whether they show an image and not padding."""


class FixMatch(PublishedWay):
    branches = ("student",)
    streams = (WeakStrong, WeakStrong)

    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], partners: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        (weak, strong, shown, boxes), (weak2, strong2, shown2, _) = images, partners
        labels2 = self.in_evaluation(self.student, weak2, shown2)
        mixed = pasted(strong[:, 0], strong2[:, 0], boxes[:, 0])
        logits, of_weak = self.full(self.student, torch.cat([x, weak])).split([len(x), len(weak)])
        of_strong = self.full(self.student, mixed)
        labels = self.labelled(of_weak, shown)
        supervised = cross_entropy(logits, target)
        strong_loss = self.of_confident(of_strong, both_labels(labels, labels2, boxes[:, 0]))
        loss = self.config.supervised_weight * supervised + self.config.strong_weight * strong_loss
        return {"loss": loss, "supervised": supervised, "strong": strong_loss}

    def in_evaluation(self, network: nn.Module, weak: Tensor, shown: Tensor) -> Labels:
        with torch.no_grad():
            network.eval()
            labels = self.labelled(self.full(network, weak), shown)
        network.train()
        return labels

    @staticmethod
    def labelled(logits: Tensor, shown: Tensor) -> Labels:
        logits = logits.detach()
        return logits.argmax(1), logits.softmax(1).max(1).values, shown

    def of_confident(self, logits: Tensor, labels: Labels) -> Tensor:
        """Cross-entropy of the pixels that are shown and confident, divided by how many are shown."""
        label, confidence, shown = labels
        losses = F.cross_entropy(logits, label, reduction="none")
        return (losses * ((confidence >= self.config.threshold) & shown)).sum() / shown.sum().item()


class UniMatch(FixMatch):
    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], partners: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        (weak, strong, shown, boxes), (weak2, strong2, shown2, _) = images, partners
        labels2 = self.in_evaluation(self.student, weak2, shown2)
        mixed = [pasted(strong[:, view], strong2[:, view], boxes[:, view]) for view in range(2)]
        clean, perturbed = self.clean_and_perturbed(torch.cat([x, weak]))
        logits, of_weak = clean.split([len(x), len(weak)])
        of_views = self.full(self.student, torch.cat(mixed)).chunk(2)
        labels = self.labelled(of_weak, shown)
        supervised = cross_entropy(logits, target)
        strong1, strong2 = (
            self.of_confident(of_views[view], both_labels(labels, labels2, boxes[:, view])) for view in range(2)
        )
        strong_loss, perturbed_loss = (strong1 + strong2) / 2, self.of_confident(perturbed[len(x) :], labels)
        loss = self.config.supervised_weight * supervised + self.config.strong_weight * strong_loss
        loss = loss + self.config.perturbed_weight * perturbed_loss
        return {"loss": loss, "supervised": supervised, "strong": strong_loss, "perturbed": perturbed_loss}

    def clean_and_perturbed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images, and of their features with half of the channels dropped, all in one batch of the decoder;
        those of perturbed labelled images are of no use."""
        maps = (torch.cat([clean, nn.Dropout2d(0.5)(clean)]) for clean in self.student.encode(x))
        logits = self.student.classify(self.student.decode(tuple(maps)))
        return upsampled(logits, x.shape[-2:]).chunk(2)


class UniMatchV2(Followed, FixMatch):
    """A teacher in evaluation mode labels; an image's partner is that of the reversed batch."""

    streams = (WeakStrong,)

    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], *partners: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """`partners`, which batches of ours name, are the reversed images."""
        weak, strong, shown, boxes = images
        with torch.no_grad():
            labels = self.labelled(self.full(self.teacher, weak), shown)
        reversed_labels = tuple(part.flip(0) for part in labels)
        mixed = [pasted(strong[:, view], strong[:, view].flip(0), boxes[:, view]) for view in range(2)]
        supervised = cross_entropy(self.full(self.student, x), target)
        strong1, strong2 = (
            self.of_confident(logits, both_labels(labels, reversed_labels, boxes[:, view]))
            for view, logits in enumerate(self.complementary(torch.cat(mixed)).chunk(2))
        )
        strong_loss = (strong1 + strong2) / 2
        loss = self.config.supervised_weight * supervised + self.config.strong_weight * strong_loss
        return {"loss": loss, "supervised": supervised, "strong": strong_loss}

    def complementary(self, views: Tensor) -> Tensor:
        """Logits of first and second views, each with the features that the other lacks, doubled; half of the pairs
        keep all."""
        maps = self.student.encode(views)
        pairs, channels = len(views) // 2, maps[0].shape[1]
        kept = torch.rand(pairs, device=views.device).argsort() < int(pairs * self.config.kept)
        mask = 2.0 * torch.randint(2, (pairs, channels), device=views.device)
        first, second = mask.clone(), 2.0 - mask
        first[kept], second[kept] = 1.0, 1.0
        both = torch.cat([first, second])[..., None, None]
        logits = self.student.classify(self.student.decode(tuple(one * both for one in maps)))
        return upsampled(logits, views.shape[-2:])


def pasted(own: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """(B, …, S, S), the partners' where the box (B, S, S) is 1."""
    mixed, inside = own.clone(), box == 1
    if own.ndim > inside.ndim:
        inside = inside[:, None].expand(own.shape)
    mixed[inside] = partners[inside]
    return mixed


def both_labels(own: Labels, partners: Labels, box: Tensor) -> Labels:
    return tuple(pasted(one, other, box) for one, other in zip(own, partners))
