"""Directional contrastive loss of context-aware consistency (Lai et al., CVPR 2021).

Row i of `feat1` and `feat2` is one image location seen in two views. In direction 1 the anchor is view 1, the target is
view 2, and only rows where view 2 is sure and surer than view 1 are active; direction 2 swaps the roles. With t the
temperature and sg the stopped gradient,

    pos_i = f1_i . sg(f2_i) / t         s_ik = f1_i . n_k / t
    D_i   = exp(pos_i) + sum over k with label_k >= 0 and label_k != label1_i of exp(s_ik)
    q_i   = exp(pos_i) / D_i            w_i = [conf2_i > threshold and conf1_i < conf2_i]
    loss1 = sum_i w_i * -log(q_i + eps) / max(1, sum_i w_i)

    d loss1 / d f1_i = w_i / (max(1, sum w) t) * q_i / (q_i + eps) * (sum_k exp(s_ik)/D_i n_k - (1 - q_i) f2_i)

and no other gradient. The two sets of active rows are disjoint (the confidences differ strictly), so that both
directions together score at most N rows. `exp(s) n` is accumulated beside `exp(s)` in one pass over the negatives: loss
and gradient take 4 P K C FLOPs for P active rows, against 12 N K C for two checkpointed directions that recompute every
score. Minimal traffic is 3 P C + K C elements; the CPU implementation keeps one block of scores and one copy of the
negatives, sorted by class.

The published program subtracts a running maximum before exp and adds eps to D as well; both are below 1e-8 in the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import reference
from ._arguments import FLOATS, INTEGERS, accumulation_dtype, check_tensor, outside_autocast, plain_only

ROWS, COLUMNS = 512, 8192
"""Scores of one block, 16 MiB in float32: smaller ones are no faster, and slower where others share the cores."""
PLAIN_SCORES = 2**27
"""Scores that the plain definition may hold at a time on a GPU, half a GiB in float32."""
LARGEST_EXPONENT = 60.0
"""exp(60) times a billion negatives is far below float32's largest: up to here no maximum has to be subtracted."""


@torch.library.custom_op("semiseg::directional_contrast_cpu", mutates_args=(), device_types="cpu")
def _operator(
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
    grad_feats: bool,
    grad_negatives: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """loss1, loss2, d loss1/d feat1, d loss2/d feat2, d loss1/d negatives, d loss2/d negatives; empty if unwanted."""
    class_of, order = negative_labels.long().sort()
    filled = int((class_of >= 0).sum())
    class_of, order = class_of[len(order) - filled :], order[len(order) - filled :]
    negatives_by_class = negatives[order]

    results = []
    for anchor, target, label, own_conf, other_conf in (
        (feat1, feat2, label1, conf1, conf2),
        (feat2, feat1, label2, conf2, conf1),
    ):
        active = (other_conf > threshold) & (own_conf < other_conf)
        rows = (active if valid is None else active & valid).nonzero()[:, 0]
        labels, by_class = label[rows].long().sort()
        rows = rows[by_class]
        begins, ends = torch.searchsorted(class_of, labels), torch.searchsorted(class_of, labels, right=True)
        own_class = list(zip(begins.tolist(), ends.tolist()))
        losses, to_anchors, to_negatives = _score(
            anchor[rows].float(), target[rows].float(), negatives_by_class, own_class, temperature, eps,
            grad_feats, grad_negatives,
        )  # fmt: skip
        count = max(1, len(rows))
        grad_feat, grad_negative = _gradient_buffer(feat1, grad_feats), _gradient_buffer(negatives, grad_negatives)
        if grad_feats:
            grad_feat[rows] = to_anchors / count
        if grad_negatives:
            grad_negative[order] = to_negatives / count
        results.append((losses.sum() / count, grad_feat, grad_negative))
    (loss1, grad_feat1, grad_negatives1), (loss2, grad_feat2, grad_negatives2) = results
    return loss1, loss2, grad_feat1, grad_feat2, grad_negatives1, grad_negatives2


def _gradient_buffer(like: Tensor, wanted: bool) -> Tensor:
    return like.new_zeros(like.shape if wanted else (0,), dtype=torch.float32)


def _score(anchors, targets, negatives, own_class, temperature, eps, grad_anchors, grad_negatives):
    """Losses (P,) of one direction's active rows and the gradients of their sum with respect to anchors and negatives.

    Rows and negatives are sorted by class; `own_class[i]` is the slice (begin, end) of the negatives of row i's class.
    """
    scaled = anchors / temperature
    positive = (scaled * targets).sum(1, keepdim=True)
    maximum = _maximum(scaled, positive, targets, negatives, own_class)

    total = torch.zeros_like(positive)
    weighted = torch.zeros_like(anchors)
    for rows, columns, scores in _foreign_scores(scaled, negatives, own_class):
        exps = (scores if maximum is None else scores.sub_(maximum[rows])).exp_()
        total[rows] += exps.sum(1, keepdim=True)
        if grad_anchors:
            weighted[rows].addmm_(exps, negatives[columns].float())

    own = torch.exp(positive if maximum is None else positive - maximum)
    denominator = own + total
    q = own / denominator
    slope = q / ((q + eps) * denominator)
    if grad_anchors:
        weighted.sub_(total * targets).mul_(slope / temperature)
    to_negatives = negatives.new_zeros(negatives.shape if grad_negatives else (0,), dtype=torch.float32)
    if grad_negatives:
        sloped = scaled * slope
        for rows, columns, scores in _foreign_scores(scaled, negatives, own_class):
            exps = (scores if maximum is None else scores.sub_(maximum[rows])).exp_()
            to_negatives[columns].addmm_(exps.T, sloped[rows])
    return -torch.log(q[:, 0] + eps), weighted, to_negatives


def _maximum(scaled: Tensor, positive: Tensor, targets: Tensor, negatives: Tensor, own_class) -> Tensor | None:
    """What to subtract from each row's scores before exp: None where the norms bound them well inside float32."""
    norms = [float(rows.float().norm(dim=1).amax()) for rows in (scaled, targets, negatives) if len(rows)]
    if not len(scaled) or norms[0] * max(norms[1:]) <= LARGEST_EXPONENT:
        return None
    maximum = positive.clone()
    for rows, _, scores in _foreign_scores(scaled, negatives, own_class):
        maximum[rows] = torch.maximum(maximum[rows], scores.amax(1, keepdim=True))
    return maximum


def _foreign_scores(scaled: Tensor, negatives: Tensor, own_class) -> Iterator[tuple[slice, slice, Tensor]]:
    """Row slice, column slice and scores of every block, -inf for own-class pairs; the next block reuses the memory."""
    buffer = scaled.new_empty(min(ROWS, len(scaled)) * min(COLUMNS, len(negatives)))
    for first in range(0, len(scaled), ROWS):
        rows = slice(first, min(first + ROWS, len(scaled)))
        slices = {own: len(list(group)) for own, group in groupby(own_class[rows])}
        # A block of one class skips its own class, a mixed one scores everything and strikes the own classes out.
        ranges = [(0, len(negatives))]
        if len(slices) == 1:
            (begin, end), _ = slices.popitem()
            ranges = [(0, begin), (end, len(negatives))]
        for begin, end in ranges:
            for low in range(begin, end, COLUMNS):
                columns = slice(low, min(low + COLUMNS, end))
                shape = (rows.stop - rows.start, columns.stop - columns.start)
                scores = buffer[: shape[0] * shape[1]].view(shape)
                torch.mm(scaled[rows], negatives[columns].float().T, out=scores)
                row = 0
                for (own_begin, own_end), height in slices.items():
                    scores[row : row + height, max(own_begin - low, 0) : max(own_end - low, 0)] = -torch.inf
                    row += height
                yield rows, columns, scores


@_operator.register_fake
def _(feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, valid, temperature, threshold, eps,
      grad_feats, grad_negatives):  # fmt: skip
    loss = feat1.new_empty((), dtype=torch.float32)
    gradient = feat1.new_empty(feat1.shape if grad_feats else (0,), dtype=torch.float32)
    to_negatives = feat1.new_empty(negatives.shape if grad_negatives else (0,), dtype=torch.float32)
    return loss, loss.clone(), gradient, gradient.clone(), to_negatives, to_negatives.clone()


def _setup_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)
    ctx.dtypes = inputs[0].dtype, inputs[6].dtype
    ctx.grad_negatives = inputs[13]
    ctx.save_for_backward(*output[2:])


def _backward(ctx, upstream1, upstream2, *_):
    grad_feat1, grad_feat2, grad_negatives1, grad_negatives2 = ctx.saved_tensors

    def chain(upstream, gradient, dtype):
        return None if upstream is None or gradient.dim() == 1 else (upstream * gradient).to(dtype)

    feat_dtype, negatives_dtype = ctx.dtypes
    parts = [chain(upstream1, grad_negatives1, negatives_dtype), chain(upstream2, grad_negatives2, negatives_dtype)]
    parts = [part for part in parts if part is not None]
    return (
        chain(upstream1, grad_feat1, feat_dtype),
        chain(upstream2, grad_feat2, feat_dtype),
        *(None,) * 4,
        sum(parts[1:], parts[0]) if parts else None,
        *(None,) * 7,
    )


_operator.register_autograd(_backward, setup_context=_setup_context)


def _in_blocks(
    feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, *,
    valid, temperature, threshold, eps, grad_negatives, scores=PLAIN_SCORES,
):  # fmt: skip
    """The plain definition, `scores` scores at a time, which are computed again in the backward pass. Static shapes."""
    if not grad_negatives:
        negatives = negatives.detach()
    negatives = negatives.to(accumulation_dtype(feat1.dtype))
    rows = max(scores // max(len(negatives), 1), 1)

    def direction(anchor, target, label, own_conf, other_conf):
        active = (other_conf > threshold) & (own_conf < other_conf)
        if valid is not None:
            active = active & valid
        blocks = zip(*(part.split(rows) for part in (anchor, target, label, active)))
        losses = [
            checkpoint(
                reference.row_losses, anchor.to(negatives.dtype), target.detach().to(negatives.dtype), label, active,
                negatives, negative_labels, temperature, eps, use_reentrant=False,
            ).sum()
            for anchor, target, label, active in blocks
        ]  # fmt: skip
        return torch.stack(losses).sum() / active.sum().clamp(min=1)

    conf1, conf2 = conf1.detach(), conf2.detach()
    return direction(feat1, feat2, label1, conf1, conf2), direction(feat2, feat1, label2, conf2, conf1)


@outside_autocast
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
    """Directional contrastive loss of two aligned lists of features, both directions.

    feat1, feat2: (N, C) float, rows L2-normalised, row i of both the same image location. label1, label2: (N,) int, the
    pseudo-label in each view. conf1, conf2: (N,) float in [0, 1], not differentiated.
    negatives: (K, C) float, L2-normalised; differentiated only with `grad_negatives`.
    negative_labels: (K,) int; a negative of the anchor's own label is not used, one below zero is an empty bank slot.
    valid: (N,) bool; false rows take no part. temperature > 0; threshold: the least confidence of a target, exclusive.

    Returns (loss1, loss2), scalars in float32 (float64 for float64), each the mean over its own active rows, zero with
    zero gradient where there is none. An anchor without any foreign negative has loss 0 (to eps).
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("feat1", feat1, (None, None), FLOATS)
    rows, channels = feat1.shape
    dtype, device = feat1.dtype, feat1.device
    check_tensor("feat2", feat2, (rows, channels), (dtype,), device)
    for name, label in (("label1", label1), ("label2", label2)):
        check_tensor(name, label, (rows,), INTEGERS, device)
    for name, conf in (("conf1", conf1), ("conf2", conf2)):
        check_tensor(name, conf, (rows,), FLOATS, device)
    check_tensor("negatives", negatives, (None, channels), FLOATS, device)
    check_tensor("negative_labels", negative_labels, (negatives.shape[0],), INTEGERS, device)
    if valid is not None:
        check_tensor("valid", valid, (rows,), (torch.bool,), device)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, not {eps}")

    if feat1.device.type != "cpu" and len(feat1) * len(negatives) > PLAIN_SCORES:
        return _in_blocks(
            feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, valid=valid,
            temperature=temperature, threshold=threshold, eps=eps, grad_negatives=grad_negatives,
        )  # fmt: skip
    if plain_only(feat1):
        return reference.directional_contrast(
            feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels, valid=valid,
            temperature=temperature, threshold=threshold, eps=eps, grad_negatives=grad_negatives,
        )  # fmt: skip
    recording = torch.is_grad_enabled()
    grad_feats = recording and (feat1.requires_grad or feat2.requires_grad)
    grad_negatives = recording and grad_negatives and negatives.requires_grad
    loss1, loss2, *_ = _operator(
        feat1, feat2, label1, label2, conf1.detach(), conf2.detach(),
        negatives if grad_negatives else negatives.detach(), negative_labels, valid,
        temperature, threshold, eps, grad_feats, grad_negatives,
    )  # fmt: skip
    return loss1, loss2
