"""Cross-entropy of upsampled logits, all pixels and the hard ones, at the training sizes of CPS.

    pytest benchmarks/bench_upsample_cross_entropy.py [-k "cityscapes and bf16"] [--compiled] [--rounds N]

`plain` interpolates and calls F.cross_entropy; under autocast the upsampled logits are in the low precision.
"""

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from upsampling import SIZES, TINY, random_logits, random_target

HARD = 50_000 / 800**2
"""Share of the pixels that CPS keeps at least on Cityscapes."""


def inputs(batch, classes, low, full, dtype, device):
    return {
        "logits": random_logits(batch, classes, low, dtype, device),
        "target": random_target(batch, classes, full, device),
    }


def hard_inputs(**size):
    tensors = inputs(**size)
    return tensors | {"min_kept": round(HARD * tensors["target"].numel())}


def plain(logits, target):
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=True)
    return F.cross_entropy(full, target.long(), ignore_index=255)


def plain_hard(logits, target, min_kept):
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=True)
    target = target.long()
    valid = target != 255
    probability = full.detach().softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0]
    probability = probability.masked_fill(~valid, 1)
    bound = probability.flatten().sort().values[min_kept - 1].clamp(min=0.7)
    return F.cross_entropy(full, target.masked_fill(probability > bound, 255), ignore_index=255)


def work(backward, logits, target, **_):
    """Logits and target are read, the gradient is written."""
    return (2 if backward else 1) * logits.nbytes + target.nbytes


CROSS_ENTROPY = Operator(
    name="upsample_cross_entropy",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=inputs,
    providers={
        "plain": plain,
        "fused": kernels.upsample_cross_entropy,
        "fused-deterministic": lambda **tensors: kernels.upsample_cross_entropy(**tensors, deterministic=True),
    },
    exact=reference.upsample_cross_entropy,
    work=work,
    unit="GB/s",
    gradients=("logits",),
)
HARD_CROSS_ENTROPY = Operator(
    name="upsample_ohem_cross_entropy",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=hard_inputs,
    providers={"plain": plain_hard, "fused": kernels.upsample_ohem_cross_entropy},
    exact=reference.upsample_ohem_cross_entropy,
    work=work,
    unit="GB/s",
    gradients=("logits",),
)


@pytest.mark.operator(CROSS_ENTROPY)
def bench_upsample_cross_entropy(measure, case):
    measure(case)


@pytest.mark.operator(HARD_CROSS_ENTROPY)
def bench_upsample_ohem_cross_entropy(measure, case):
    measure(case)
