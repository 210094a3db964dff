"""CutMix of normalised images at the training sizes of CPS.

    pytest benchmarks/bench_cutmix.py [-k "cityscapes and bf16"] [--compiled] [--rounds N]

`plain` multiplies by a mask that is there already, as CPS does with masks of its loader.
"""

import pytest
import torch

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference
from upsampling import random_boxes


def inputs(batch, size, dtype, device):
    boxes = random_boxes(batch, size, device)
    images = torch.randn(2, batch, 3, *size, device=device).to(dtype)
    images_a, images_b = (image.contiguous(memory_format=torch.channels_last) for image in images)
    mask = kernels.box_mask(boxes, size)[:, None].to(dtype)
    return {"images_a": images_a, "images_b": images_b, "boxes": boxes, "mask": mask}


def plain(images_a, images_b, boxes, mask):
    return images_a * (1 - mask) + images_b * mask


def without_mask(operator):
    return lambda images_a, images_b, boxes, mask: operator(images_a, images_b, boxes)


CUTMIX = Operator(
    name="cutmix",
    sizes={"voc": {"batch": 16, "size": (321, 321)}, "cityscapes": {"batch": 16, "size": (800, 800)}},
    cpu_sizes=("voc",),
    tiny={"batch": 2, "size": (33, 40)},
    inputs=inputs,
    providers={"plain": plain, "fused": without_mask(kernels.cutmix)},
    exact=without_mask(reference.cutmix),
    # One image is read, one written.
    work=lambda backward, images_a, **_: 2 * images_a.nbytes,
    unit="GB/s",
)


@pytest.mark.operator(CUTMIX)
def bench_cutmix(measure, case):
    measure(case)
