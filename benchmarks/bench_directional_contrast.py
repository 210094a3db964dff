"""The contrastive loss at the sizes of CAC, with all its negatives of the last steps.

    pytest benchmarks/bench_directional_contrast.py [-k "voc-r50 and bf16"] [--compiled] [--rounds N]

`plain` scores every row in both directions against 8000 negatives at a time and scores them again in the backward pass,
as the published program does. `flex_attention` is attention with the negatives as keys and as values, for all rows and
both directions at once: its log-sum-exp gives the loss, its output the gradient in closed form. On the CPU torch
computes it without fusion. Published sizes are those of one GPU of several, `one-gpu` has the whole batch on one.
"""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from operator_benchmark import Operator
from published_way.cac import CHUNK, direction
from semiseg import kernels
from semiseg.kernels import reference

CHANNELS, TEMPERATURE, THRESHOLD, EPS = 128, 0.1, 0.75, 1e-8
EXACT_SCORES = 2**25
"""Scores that the definition holds at a time, in float64."""

NUMBERS = {
    "cpu": (6400, 25600, 21),
    "voc-r50": (6400, 51200, 21),
    "voc-r101": (6400, 76800, 21),
    "cityscapes": (16200, 129600, 19),
    "voc-one-gpu": (12800, 51200, 21),
    "cityscapes-one-gpu": (64800, 129600, 19),
}
SIZES = {
    f"{name}-{active}": {"rows": rows, "negatives": negatives, "classes": classes, "active": active}
    for name, (rows, negatives, classes) in NUMBERS.items()
    for active in ("uniform", "all")
}


def inputs(rows, negatives, classes, active, dtype, device) -> dict[str, Tensor]:
    """Random features and labels. Confidences are uniform in [0, 1], so that 7 of 16 rows are active, or all sure."""

    def features(count):
        return F.normalize(torch.randn(count, CHANNELS, device=device), dim=1).to(dtype)

    def confidences():
        uniform = torch.rand(rows, device=device)
        return uniform if active == "uniform" else 1 - (1 - THRESHOLD) * uniform

    return {
        "feat1": features(rows),
        "feat2": features(rows),
        **{f"label{view}": torch.randint(classes, (rows,), device=device) for view in (1, 2)},
        "conf1": confidences(),
        "conf2": confidences(),
        "negatives": features(negatives),
        "negative_labels": torch.randint(classes, (negatives,), device=device),
    }


def plain(feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels):
    bank = negatives, negative_labels, TEMPERATURE, THRESHOLD
    return direction(feat1, feat2, label1, conf1, conf2, *bank), direction(feat2, feat1, label2, conf2, conf1, *bank)


def flex(feat1, feat2, label1, label2, conf1, conf2, negatives, negative_labels):
    """Every row takes part once, with the view that is less sure as its anchor."""
    first, active = conf1 < conf2, sure(conf1, conf2)
    anchor = torch.where(first[:, None], feat1, feat2)
    target = torch.where(first[:, None], feat2, feat1).detach()
    losses = AttentionLoss.apply(anchor, target, torch.where(first, label1, label2), negatives, negative_labels)
    weights = [active & first, active & ~first]
    return tuple(torch.where(w, losses, 0).sum() / w.sum().clamp(min=1) for w in weights)


class AttentionLoss(torch.autograd.Function):
    """(N,) losses of all rows; the gradient comes with the forward pass."""

    @staticmethod
    def forward(ctx, anchor, target, label, negatives, negative_labels):
        score = compiled_scores() if anchor.device.type == "cuda" else scores
        losses, gradient = score(anchor.detach(), target, label, negatives, negative_labels)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return (upstream[:, None] * gradient).to(gradient.dtype), None, None, None, None


def scores(anchor, target, label, negatives, negative_labels):
    def foreign(batch, head, row, column):
        return label[row] != negative_labels[column]

    mask = create_block_mask(foreign, None, None, len(anchor), len(negatives), device=anchor.device)
    query, keys = anchor[None, None], negatives[None, None]
    mean, aux = flex_attention(
        query, keys, keys, block_mask=mask, scale=1 / TEMPERATURE, return_aux=AuxRequest(lse=True)
    )
    positive = (anchor.float() * target.float()).sum(1) / TEMPERATURE
    share = torch.sigmoid(positive - aux.lse[0, 0])
    slope = share / (share + EPS) * (1 - share) / TEMPERATURE
    gradient = slope[:, None] * (mean[0, 0].float() - target.float())
    return -torch.log(share + EPS), gradient.to(anchor.dtype)


@cache
def compiled_scores():
    return torch.compile(scores, dynamic=False)


def exact(negatives, negative_labels, **rows):
    """The plain definition, of the active rows alone and some at a time."""
    active = sure(rows["conf1"], rows["conf2"])
    rows = {name: values[active] for name, values in rows.items()}
    some = EXACT_SCORES // len(negatives)
    return reference.directional_contrast(**rows, negatives=negatives, negative_labels=negative_labels, block_rows=some)


def sure(conf1, conf2):
    """Rows that are active in one direction; none is in both."""
    return (torch.maximum(conf1, conf2) > THRESHOLD) & (conf1 != conf2)


def work(backward, conf1, conf2, negatives, **_):
    """2 P K C for the scores of P active rows, 2 P K C for the gradient."""
    return (4 if backward else 2) * int(sure(conf1, conf2).sum()) * negatives.numel()


CONTRAST = Operator(
    name="directional_contrast",
    sizes=SIZES,
    cpu_sizes=("cpu-uniform",),
    gpu_sizes=tuple(name for name in SIZES if "cpu" not in name and "one-gpu" not in name),
    seldom=("flex_attention",),
    tiny={"rows": 130, "negatives": CHUNK + 50, "classes": 5, "active": "uniform"},
    inputs=inputs,
    providers={
        "plain": plain,
        "flex_attention": flex,
        "fused": kernels.directional_contrast,
        "fused-by-class": lambda **tensors: kernels.directional_contrast(**tensors, by_class=True),
    },
    exact=exact,
    work=work,
    unit="TFLOP/s",
    gradients=("feat1", "feat2"),
)


@pytest.mark.operator(CONTRAST)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def bench_directional_contrast(measure, case):
    measure(case)
