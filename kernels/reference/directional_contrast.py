"""Plain definition of the directional contrastive loss (Lai et al., Context-Aware Consistency, CVPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import accumulation_dtype


def directional_contrast(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    threshold: float = 0.75,
    eps: float = 1e-8,
    grad_negatives: bool = False,
) -> tuple[Tensor, Tensor]:
    """Both directions, with the whole N x K score matrix. Arguments as in `semiseg.kernels.directional_contrast`."""
    dtype = accumulation_dtype(feat1.dtype)
    feat1, feat2, negatives = feat1.to(dtype), feat2.to(dtype), negatives.to(dtype)
    if not grad_negatives:
        negatives = negatives.detach()

    def direction(anchor, target, label, own_conf, other_conf):
        active = (other_conf > threshold) & (own_conf < other_conf)
        if valid is not None:
            active = active & valid
        losses = row_losses(anchor, target, label, active, negatives, negative_labels, temperature, eps)
        return losses.sum() / active.sum().clamp(min=1)

    conf1, conf2 = conf1.detach(), conf2.detach()
    return direction(feat1, feat2, label1, conf1, conf2), direction(feat2, feat1, label2, conf2, conf1)


def row_losses(
    anchor: Tensor,
    target: Tensor,
    label: Tensor,
    active: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    temperature: float,
    eps: float,
) -> Tensor:
    """(N,) losses of one direction, 0 where `active` (N,) is false; the target gets no gradient."""
    # Inactive rows are zeroed, not only weighted by zero, so that whatever they hold stays out of the gradient.
    anchor = torch.where(active[:, None], anchor, 0)
    target = torch.where(active[:, None], target.detach(), 0)
    foreign = (negative_labels >= 0) & (negative_labels != label[:, None])
    positive_score = (anchor * target).sum(1, keepdim=True) / temperature
    negative_scores = (anchor @ negatives.T / temperature).masked_fill(~foreign, -torch.inf)
    scores = torch.cat([positive_score, negative_scores], dim=1)
    losses = -torch.log(torch.exp(positive_score[:, 0] - scores.logsumexp(1)) + eps)
    return torch.where(active, losses, 0)
