"""Squared error between probabilities of upsampled logits, as Mean Teacher has it, at the training sizes of CPS.

    pytest benchmarks/bench_upsample_mse.py [-k "cityscapes and bf16"] [--compiled] [--rounds N]

`plain` interpolates both logits and takes the difference of their softmax.
"""

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from upsampling import SIZES, TINY, random_logits


def inputs(batch, classes, low, full, dtype, device):
    logits, teacher = (random_logits(batch, classes, low, dtype, device) for _ in range(2))
    return {"logits": logits, "teacher": teacher.flip(0), "size": full}


def plain(logits, teacher, size):
    with torch.no_grad():
        wanted = F.interpolate(teacher, size, mode="bilinear", align_corners=True).softmax(1)
    full = F.interpolate(logits, size, mode="bilinear", align_corners=True)
    return (full.softmax(1) - wanted).square().sum(1).mean()


def work(backward, logits, teacher, **_):
    """Both logits are read, the gradient is written."""
    return (2 if backward else 1) * logits.nbytes + teacher.nbytes


SQUARED_ERROR = Operator(
    name="upsample_mse",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=inputs,
    providers={"plain": plain, "fused": kernels.upsample_mse},
    exact=reference.upsample_mse,
    work=work,
    unit="GB/s",
    gradients=("logits",),
)


@pytest.mark.operator(SQUARED_ERROR)
def bench_upsample_mse(measure, case):
    measure(case)
