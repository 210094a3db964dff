"""Pseudo-labels of upsampled logits, of one image and of two that are mixed, at the training sizes of CPS.

    pytest benchmarks/bench_pseudo_label.py [-k "mixed and bf16"] [--compiled] [--rounds N]

`plain` interpolates, mixes with a mask that is there already, and takes softmax and its maximum. `plain-labels` takes
the maximum alone, as CPS does, which has no use for confidences.
"""

import pytest
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from upsampling import SIZES, TINY, random_boxes, random_logits


def inputs(batch, classes, low, full, dtype, device):
    return {"logits": random_logits(batch, classes, low, dtype, device), "size": full}


def mixed_inputs(batch, classes, low, full, dtype, device):
    boxes = random_boxes(batch, full, device)
    return {
        **{f"logits_{image}": random_logits(batch, classes, low, dtype, device) for image in "ab"},
        "boxes": boxes,
        "mask": kernels.box_mask(boxes, full)[:, None].to(dtype),
        "size": full,
    }


def upsample(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)


def plain(logits, size):
    confidence, label = upsample(logits, size).softmax(1).max(1)
    return label, confidence


def plain_labels(logits, size):
    return upsample(logits, size).argmax(1)


def mix(logits_a, logits_b, mask, size):
    return upsample(logits_a, size) * (1 - mask) + upsample(logits_b, size) * mask


def plain_mixed(logits_a, logits_b, boxes, mask, size):
    confidence, label = mix(logits_a, logits_b, mask, size).softmax(1).max(1)
    return label, confidence


def plain_mixed_labels(logits_a, logits_b, boxes, mask, size):
    return mix(logits_a, logits_b, mask, size).argmax(1)


def work(backward, logits, size):
    """Logits are read, a byte and a float are written for each pixel."""
    return logits.nbytes + 5 * len(logits) * size[0] * size[1]


def without_mask(operator):
    return lambda logits_a, logits_b, boxes, mask, size: operator(logits_a, logits_b, boxes, size)


PSEUDO_LABEL = Operator(
    name="pseudo_label",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=inputs,
    providers={"plain": plain, "plain-labels": plain_labels, "fused": kernels.pseudo_label},
    exact=reference.pseudo_label,
    work=work,
    unit="GB/s",
)
MIXED_PSEUDO_LABEL = Operator(
    name="mixed_pseudo_label",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny=TINY,
    inputs=mixed_inputs,
    providers={
        "plain": plain_mixed,
        "plain-labels": plain_mixed_labels,
        "fused": without_mask(kernels.mixed_pseudo_label),
    },
    exact=without_mask(reference.mixed_pseudo_label),
    work=lambda backward, logits_a, logits_b, size, **_: work(backward, logits_a, size) + logits_b.nbytes,
    unit="GB/s",
)


@pytest.mark.operator(PSEUDO_LABEL)
def bench_pseudo_label(measure, case):
    measure(case)


@pytest.mark.operator(MIXED_PSEUDO_LABEL)
def bench_mixed_pseudo_label(measure, case):
    measure(case)
