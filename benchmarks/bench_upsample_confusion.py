"""Confusion counts of upsampled logits, at the sizes of evaluation.

    pytest benchmarks/bench_upsample_confusion.py [-k "cityscapes and bf16"] [--compiled] [--rounds N]

`plain` interpolates, takes the largest class and counts the pixels that are not ignored.
"""

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from upsampling import TINY, random_logits, random_target

SIZES = {
    "voc": {"batch": 16, "classes": 21, "low": (128, 128), "full": (512, 512)},
    "cityscapes": {"batch": 4, "classes": 19, "low": (256, 512), "full": (1024, 2048)},
}


def inputs(batch, classes, low, full, dtype, device):
    return {
        "logits": random_logits(batch, classes, low, dtype, device),
        "target": random_target(batch, classes, full, device),
        "num_classes": classes,
    }


def plain(logits, target, num_classes):
    full = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=True)
    counted = target != 255
    pairs = num_classes * target[counted].long() + full.argmax(1)[counted]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


CONFUSION = Operator(
    name="upsample_confusion",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=inputs,
    providers={"plain": plain, "fused": kernels.upsample_confusion},
    exact=reference.upsample_confusion,
    # Logits and target are read.
    work=lambda backward, logits, target, **_: logits.nbytes + target.nbytes,
    unit="GB/s",
)


@pytest.mark.operator(CONFUSION)
def bench_upsample_confusion(measure, case):
    measure(case)
