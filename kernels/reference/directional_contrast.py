"""Plain definition of the directional contrastive loss (Lai et al., Context-Aware Consistency, CVPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._arguments import accumulation_dtype

LARGEST_SCORES = 2**27
"""Scores that are held at a time away from the CPU, half a GiB in float32."""


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
    block_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Both directions, with the whole N x K score matrix. Arguments as in `semiseg.kernels.directional_contrast`.

    block_rows: with a number, so many rows are scored at a time, and scored again in the backward pass.
    """
    dtype = accumulation_dtype(feat1.dtype)
    feat1, feat2, negatives = feat1.to(dtype), feat2.to(dtype), negatives.to(dtype)
    if not grad_negatives:
        negatives = negatives.detach()

    def direction(anchor, target, label, own_conf, other_conf):
        active = (other_conf > threshold) & (own_conf < other_conf)
        if valid is not None:
            active = active & valid
        rows = (anchor, target.detach(), label, active)
        bank = (negatives, negative_labels, temperature, eps)
        if block_rows is None:
            total = row_losses(*rows, *bank).sum()
        else:
            blocks = zip(*(part.split(block_rows) for part in rows))
            losses = [
                checkpoint(row_losses, *block, *bank, use_reentrant=False, preserve_rng_state=False).sum()
                for block in blocks
            ]
            total = torch.stack(losses).sum()
        return total / active.sum().clamp(min=1)

    conf1, conf2 = conf1.detach(), conf2.detach()
    return direction(feat1, feat2, label1, conf1, conf2), direction(feat2, feat1, label2, conf2, conf1)


def affordable_rows(rows: int, negatives: int) -> int | None:
    """`block_rows` that keeps to LARGEST_SCORES; None where all rows do."""
    return None if rows * negatives <= LARGEST_SCORES else max(1, LARGEST_SCORES // negatives)


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
    # Inactive rows and empty slots are zeroed, not only weighted by zero, so that whatever they hold stays out of the
    # gradient.
    anchor = torch.where(active[:, None], anchor, 0)
    target = torch.where(active[:, None], target.detach(), 0)
    filled = negative_labels >= 0
    negatives = torch.where(filled[:, None], negatives, 0)
    foreign = filled & (negative_labels != label[:, None])
    positive_score = (anchor * target).sum(1, keepdim=True) / temperature
    negative_scores = (anchor @ negatives.T / temperature).masked_fill(~foreign, -torch.inf)
    scores = torch.cat([positive_score, negative_scores], dim=1)
    log_q = positive_score[:, 0] - scores.logsumexp(1)
    losses = -torch.logaddexp(log_q, log_q.new_full((), eps).log())
    return torch.where(active, losses, 0)
