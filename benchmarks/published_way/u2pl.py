"""U2PL's program, in the form that ours has by default: thresholds from NumPy on the host, a loop over the classes,
lists of features, and for each class a bank on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.engine.models import Network
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.datasets.dataset import IGNORE

from .images import WeakStrong
from .teachers import Followed
from .unimatch import pasted
from .way import cross_entropy, upsampled


class U2pl(Followed):
    """The share of unreliable pixels stays that of the schedule's first step; all negatives enter the banks."""

    streams = (WeakStrong,)
    projector = True

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__(recipe, classes)
        self.bank = [torch.empty(0, self.student.projection) for _ in range(classes)]

    def losses(
        self, x: Tensor, target: Tensor, images: Sequence[Tensor], partners: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """An image's partner is the next one, unless `partners` of a batch of ours are others."""
        windows = self.labelled(images)
        others = self.labelled(partners) if partners else [part.roll(-1, 0) for part in windows]
        mixed, label = (pasted(own, other, images[-1][:, 0]) for own, other in zip(windows, others))
        both, sizes, full = torch.cat([x, mixed]), [len(x), len(mixed)], x.shape[-2:]
        logits, feature = described(self.student, both)
        of_labeled, of_mixed = (upsampled(part, full) for part in logits.split(sizes))
        supervised = cross_entropy(of_labeled, target)
        with torch.no_grad():
            logits, taught = described(self.teacher, both)
            probability = logits.softmax(1)
            judged = upsampled(logits[len(x) :], full)
        pseudo = self.pseudo_loss(of_mixed, label, judged)
        contrastive = self.contrast(target, label, judged, probability, feature, taught)
        loss = supervised + self.config.weight * pseudo + self.config.contrastive_weight * contrastive
        return {"loss": loss, "supervised": supervised, "pseudo": pseudo, "contrastive": contrastive}

    def labelled(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Windows (B, 3, S, S) and their labels (B, S, S), ignored where padding is."""
        weak, strong, shown, _ = images
        with torch.no_grad():
            label = self.full(self.teacher, weak).softmax(1).max(1).indices
        label[~shown] = IGNORE
        return strong[:, 0], label

    def pseudo_loss(self, logits: Tensor, label: Tensor, judged: Tensor) -> Tensor:
        """Logits (B, C, S, S) of the student and of the teacher, `judged`, and labels (B, S, S)."""
        entropy, target = entropy_of(judged), label.clone()
        target[entropy >= percentile(entropy, label, 1 - self.config.unreliable)] = IGNORE
        weight = (label != IGNORE).sum() / (target != IGNORE).sum()
        return weight * cross_entropy(logits, target)

    def contrast(
        self, target: Tensor, label: Tensor, judged: Tensor, probability: Tensor, feature: Tensor, taught: Tensor
    ) -> Tensor:
        """Targets of labelled windows, and labels and full logits of mixed ones; of all windows the teacher's
        probabilities (N, C, h, w), and the student's and the teacher's features (N, D, h, w)."""
        config, classes, size, labeled = self.config, len(self.bank), feature.shape[-2:], len(target)
        entropy = entropy_of(judged)
        low, high = (percentile(entropy, label, share) for share in (config.unreliable, 1 - config.unreliable))
        known, counted = target != IGNORE, label != IGNORE
        certain = small(torch.cat([known, counted & (entropy <= low)])[:, None].float(), size)
        uncertain = small(torch.cat([known, counted & (entropy >= high)])[:, None].float(), size)
        label = torch.cat([small(one_hot(each, classes), size) for each in (target, label)])
        member, others = (label * certain).bool(), (uncertain * (label == 0))[:labeled].bool()
        order = probability.sort(1, descending=True).indices.permute(0, 2, 3, 1)
        first = min(config.low_rank, classes // 2)
        feature, taught = (maps.permute(0, 2, 3, 1) for maps in (feature, taught))
        anchors, positives, valid = [], [], []
        for c in range(classes):
            anchors.append(feature[member[:, c] & (probability[:, c] > config.anchor_threshold)])
            positives.append(taught[member[:, c]].mean(0))
            mistaken = (order[:labeled, ..., :first] == c).any(3) & others[:, c]
            unlikely = (order[labeled:, ..., first : config.high_rank] == c).any(3) & uncertain[labeled:, 0].bool()
            self.remember(c, taught[torch.cat([mistaken, unlikely])])
            if member[:, c].sum() > 0:
                valid.append(c)
        draws = torch.rand(1, classes, config.anchors, 1 + config.negatives, device=feature.device)[0]
        loss = 0 * feature.sum()
        if len(valid) > 1:
            for c in valid:
                if len(anchors[c]) and len(self.bank[c]):
                    loss = loss + self.repelled(anchors[c], positives[c], self.bank[c].to(feature.device), draws[c])
        return loss / max(len(valid), 1)

    def remember(self, c: int, keys: Tensor) -> None:
        self.bank[c] = torch.cat([self.bank[c], keys.cpu()])[-self.config.bank_size :]

    def repelled(self, anchors: Tensor, positive: Tensor, bank: Tensor, draws: Tensor) -> Tensor:
        """The mean over drawn ones of a class's anchors (N, D). draws (A, 1 + K), in [0, 1): which anchor, and which
        features of the bank (M, D)."""
        anchor = anchors[(draws[:, 0] * len(anchors)).long()]
        negatives = bank[(draws[:, 1:] * len(bank)).long()]
        features = torch.cat([positive.expand(len(anchor), 1, -1), negatives], 1)
        similarity = torch.cosine_similarity(anchor[:, None], features, dim=2)
        first = torch.zeros(len(anchor), dtype=torch.long, device=anchor.device)
        return F.cross_entropy(similarity / self.config.temperature, first)


def described(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C, h, w) and projected features (B, D, h, w)."""
    features = network.features(x)
    return network.classify(features), network.project(features)


def entropy_of(logits: Tensor) -> Tensor:
    probability = logits.softmax(1)
    return -(probability * (probability + 1e-10).log()).sum(1)


def percentile(entropy: Tensor, label: Tensor, share: float) -> float:
    """The quantile at a share, in [0, 1], of the pixels (B, S, S) that have a label."""
    return float(np.percentile(entropy[label != IGNORE].cpu().numpy(), 100 * share))


def one_hot(label: Tensor, classes: int) -> Tensor:
    """(B, S, S) -> (B, C, S, S), 0 where ignored."""
    known = (label != IGNORE)[:, None]
    maps = torch.zeros(len(label), classes, *label.shape[1:], device=label.device)
    return maps.scatter_(1, label[:, None] * known, 1.0) * known


def small(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="nearest")
