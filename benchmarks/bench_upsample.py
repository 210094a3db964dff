"""Bilinear upsampling of the decoder's maps and its gradient, 256 channels, channels-last.

    pytest benchmarks/bench_upsample.py [-k "voc and bf16"] [--compiled] [--rounds N]

`plain` is F.interpolate, whose gradient CUDA adds up atomically in the dtype of the maps. On the CPU both are the same.
"""

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference

SIZES = {
    "voc": {"batch": 16, "channels": 256, "low": (20, 20), "full": (80, 80)},
    "cityscapes": {"batch": 16, "channels": 256, "low": (50, 50), "full": (200, 200)},
}


def inputs(batch, channels, low, full, dtype, device):
    maps = torch.randn(batch, channels, *low, device=device).to(dtype)
    return {"maps": maps.contiguous(memory_format=torch.channels_last), "size": full}


def plain(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def work(backward, maps, size):
    """Maps are read and written, their gradient too."""
    once = maps.nbytes + maps.nbytes // (maps.shape[2] * maps.shape[3]) * size[0] * size[1]
    return (2 if backward else 1) * once


UPSAMPLE = Operator(
    name="upsample",
    sizes=SIZES,
    cpu_sizes=("voc",),
    tiny={"batch": 2, "channels": 8, "low": (5, 6), "full": (20, 23)},
    inputs=inputs,
    providers={"plain": plain, "fused": kernels.upsample},
    exact=reference.upsample,
    work=work,
    unit="GB/s",
    gradients=("maps",),
)


@pytest.mark.operator(UPSAMPLE)
def bench_upsample(measure, case):
    measure(case)
