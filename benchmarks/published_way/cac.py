"""CAC's program: overlaps cut out in a loop over the images, the contrast against 8000 negatives at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from semiseg.engine.recipe import Recipe

from .images import STRIDE, Pairs
from .way import PublishedWay, cross_entropy

CHUNK = 8000


class Cac(PublishedWay):
    streams = (Pairs,)
    projector = True

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__(recipe, classes)
        self.bank: list[tuple[Tensor, Tensor]] = []

    def losses(self, x: Tensor, target: Tensor, pair: Sequence[Tensor]) -> dict[str, Tensor]:
        config = self.config
        supervised = cross_entropy(self.full(self.network, x), target)
        views, low, high, flips = pair
        maps = [self.described(views[:, view]) for view in range(2)]
        self.bank.append(
            (
                torch.cat([rows(feature) for feature, _, _ in maps]).detach(),
                torch.cat([label.flatten() for _, label, _ in maps]),
            )
        )
        self.bank = self.bank[-config.bank_steps :]
        aligned = [
            [
                torch.cat(parts)
                for parts in zip(*(self.overlap(*maps[v], low, high, flips, v, b) for b in range(len(low))))
            ]
            for v in range(2)
        ]
        (feature1, label1, sure1), (feature2, label2, sure2) = aligned
        negatives = tuple(torch.cat(parts) for parts in zip(*self.bank))
        numbers = config.temperature, config.threshold
        contrastive = direction(feature1, feature2, label1, sure1, sure2, *negatives, *numbers)
        contrastive = contrastive + direction(feature2, feature1, label2, sure2, sure1, *negatives, *numbers)
        return {
            "loss": supervised + config.weight * contrastive,
            "supervised": supervised,
            "contrastive": contrastive,
        }

    def described(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features (B, 128, g, g), labels and confidences (B, g, g)."""
        pooled = F.avg_pool2d(self.network.features(view), 2)
        feature = F.normalize(self.network.project(pooled), dim=1)
        confidence, label = self.network.classify(pooled).softmax(1).max(1)
        return feature, label, confidence.detach()

    @staticmethod
    def overlap(feature, label, confidence, low, high, flips, view: int, image: int) -> tuple[Tensor, Tensor, Tensor]:
        """The overlap of one image in one view, row by row: features (n, 128), labels and confidences (n,)."""
        maps = feature[image], label[image], confidence[image]
        if flips[image, view]:
            maps = tuple(one.flip(-1) for one in maps)
        (top, left), (bottom, right) = low[image, view] // STRIDE, high[image, view] // STRIDE
        feature, label, confidence = (one[..., top:bottom, left:right] for one in maps)
        return feature.flatten(1).T, label.flatten(), confidence.flatten()


def rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def direction(
    anchor: Tensor,
    target: Tensor,
    label: Tensor,
    own: Tensor,
    other: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    temperature: float,
    threshold: float,
) -> Tensor:
    """The loss of one direction, a mean over the active anchors: unit features (N, D) of anchors and of their targets,
    labels (N,) of the anchors, their confidences (N,) and those of the targets, and negatives (M, D) with labels (M,).
    """
    positive = (anchor * target.detach()).sum(1, keepdim=True) / temperature
    maximum, total = None, 0.0
    for chunk, chunk_labels in zip(negatives.split(CHUNK), negative_labels.split(CHUNK)):
        arguments = (anchor, label, positive, maximum, chunk, chunk_labels, temperature)
        more, maximum = checkpoint(foreign_sum, *arguments, use_reentrant=False)
        total = total + more
    own_score = torch.exp(positive - maximum)[:, 0]
    losses = -torch.log(own_score / (own_score + total + 1e-8) + 1e-8)
    active = ((other > threshold) & (own < other)).float()
    return (losses * active).sum() / (active.sum() + 1e-12)


def foreign_sum(anchor, label, positive, maximum, chunk, chunk_labels, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum over one chunk. What the scores of the first one reach at most is subtracted from then on."""
    scores = anchor @ chunk.T / temperature
    if maximum is None:
        maximum = torch.maximum(positive, scores.amax(1, keepdim=True)).detach()
    foreign = (label[:, None] != chunk_labels).float()
    return (torch.exp(scores - maximum) * foreign).sum(1), maximum
