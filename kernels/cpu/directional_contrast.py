"""The directional contrastive loss on the CPU: one block of scores at a time, of active rows only, sorted by class."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from .._arguments import outside_autocast
from .workers import over

ROWS, COLUMNS = 512, 8192
"""Scores of one block, 16 MiB in float32: smaller ones are no faster, and slower where others share the cores."""
LARGEST_EXPONENT = 60.0
"""exp(60) times a billion negatives is far below float32's largest: up to here no maximum has to be subtracted."""

OwnClass = list[tuple[int, int]]
"""For each row the slice (begin, end) of the negatives of its own class."""


def directional_contrast(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    valid: Tensor | None,
    temperature: float,
    threshold: float,
    eps: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses (2,), direction (N,) int8, gradient (N, C) or (0, C), lse (N,) and factor (N,), as the operator."""
    forward = (conf2 > threshold) & (conf1 < conf2)
    backward = (conf1 > threshold) & (conf2 < conf1)
    direction = forward.to(torch.int8) + 2 * backward.to(torch.int8)
    if valid is not None:
        direction *= valid
    rows, anchors, targets, bank, _, own_class = _by_class(
        feat1, feat2, label1, label2, direction, negatives, negative_labels
    )
    scaled = anchors / temperature
    positive = (scaled * targets).sum(1, keepdim=True)
    maximum = _maximum(scaled, positive, targets, bank, own_class)

    total = torch.zeros_like(positive)
    weighted = torch.zeros_like(anchors)

    def of_blocks(part: slice) -> None:
        some = slice(part.start * ROWS, part.stop * ROWS)
        for tile, columns, scores in _foreign_scores(scaled[some], bank, own_class[some]):
            exps = scores.sub_(maximum[some][tile]).exp_() if maximum is not None else scores.exp_()
            total[some][tile] += exps.sum(1, keepdim=True)
            if with_gradient:
                weighted[some][tile].addmm_(exps, bank[columns].float())

    over(-(-len(rows) // ROWS), of_blocks)
    level = maximum if maximum is not None else torch.zeros_like(positive)
    denominator = torch.exp(positive - level) + total
    log_q = positive - level - denominator.log()  # q itself may underflow
    log_eps = log_q.new_tensor(eps).log()
    first = direction[rows, None] == 1
    share = 1 / torch.where(first, first.sum(), (~first).sum()).clamp(min=1).float()
    loss = -torch.logaddexp(log_q, log_eps) * share
    row_factor = torch.sigmoid(log_q - log_eps) * share

    losses = torch.stack([loss[first].sum(), loss[~first].sum()])
    gradient = feat1.new_zeros((len(feat1) if with_gradient else 0, feat1.shape[1]), dtype=torch.float32)
    if with_gradient:
        gradient[rows] = weighted.sub_(total * targets).mul_(row_factor / (denominator * temperature))
    lse, factor = (feat1.new_zeros(len(feat1), dtype=torch.float32) for _ in range(2))
    lse[rows] = (denominator.log() + level)[:, 0]
    factor[rows] = row_factor[:, 0]
    return losses, direction, gradient, lse, factor


@outside_autocast  # a backward pass may run inside
def directional_contrast_negatives(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    direction: Tensor,
    weight: Tensor,
    lse: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    temperature: float,
) -> Tensor:
    """(K, C) float32: sum over the rows of weight times the gradient of log D, as the operator."""
    rows, anchors, _, bank, order, own_class = _by_class(
        feat1, feat2, label1, label2, direction, negatives, negative_labels
    )
    scaled = anchors / temperature
    weighted = scaled * weight[rows, None]
    lse = lse[rows, None]
    to_bank = bank.new_zeros(bank.shape, dtype=torch.float32)
    for tile, columns, scores in _foreign_scores(scaled, bank, own_class):
        to_bank[columns].addmm_(scores.sub_(lse[tile]).exp_().T, weighted[tile])
    gradient = negatives.new_zeros(negatives.shape, dtype=torch.float32)
    gradient[order] = to_bank
    return gradient


def _by_class(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    direction: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, OwnClass]:
    """Active rows (P,), their anchors and targets (P, C), the filled bank and its order, and each row's own class."""
    class_of, order = negative_labels.long().sort()
    empty = int((class_of < 0).sum())
    class_of, order = class_of[empty:], order[empty:]
    rows = direction.nonzero()[:, 0]
    labels, by_class = torch.where(direction[rows] == 1, label1[rows].long(), label2[rows].long()).sort()
    rows = rows[by_class]
    first = direction[rows, None] == 1
    ones, twos = feat1[rows].float(), feat2[rows].float()
    begins, ends = torch.searchsorted(class_of, labels), torch.searchsorted(class_of, labels, right=True)
    own_class = list(zip(begins.tolist(), ends.tolist()))
    return rows, torch.where(first, ones, twos), torch.where(first, twos, ones), negatives[order], order, own_class


def _maximum(scaled: Tensor, positive: Tensor, targets: Tensor, bank: Tensor, own_class: OwnClass) -> Tensor | None:
    """What to subtract from each row's scores before exp: None where the norms bound them well inside float32."""
    norms = [float(rows.float().norm(dim=1).amax()) for rows in (scaled, targets, bank) if len(rows)]
    if not len(scaled) or norms[0] * max(norms[1:]) <= LARGEST_EXPONENT:
        return None
    maximum = positive.clone()
    for tile, _, scores in _foreign_scores(scaled, bank, own_class):
        maximum[tile] = torch.maximum(maximum[tile], scores.amax(1, keepdim=True))
    return maximum


def _foreign_scores(scaled: Tensor, bank: Tensor, own_class: OwnClass) -> Iterator[tuple[slice, slice, Tensor]]:
    """Row slice, column slice and scores of every block, -inf for own-class pairs; the next block reuses the memory."""
    buffer = scaled.new_empty(min(ROWS, len(scaled)) * min(COLUMNS, len(bank)))
    for first in range(0, len(scaled), ROWS):
        rows = slice(first, min(first + ROWS, len(scaled)))
        slices = {own: len(list(group)) for own, group in groupby(own_class[rows])}
        # A block of one class skips its own class, a mixed one scores everything and strikes the own classes out.
        ranges = [(0, len(bank))]
        if len(slices) == 1:
            (begin, end), _ = slices.popitem()
            ranges = [(0, begin), (end, len(bank))]
        for begin, end in ranges:
            for low in range(begin, end, COLUMNS):
                columns = slice(low, min(low + COLUMNS, end))
                shape = (rows.stop - rows.start, columns.stop - columns.start)
                scores = buffer[: shape[0] * shape[1]].view(shape)
                torch.mm(scaled[rows], bank[columns].float().T, out=scores)
                row = 0
                for (own_begin, own_end), height in slices.items():
                    scores[row : row + height, max(own_begin - low, 0) : max(own_end - low, 0)] = -torch.inf
                    row += height
                yield rows, columns, scores
