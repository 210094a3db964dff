"""The first convolution of DeepLabv3+'s decoder, of the upsampled part, at the training sizes of CAC and CPS.

    pytest benchmarks/bench_upsample_conv2d.py [-k "voc and bf16"] [--compiled] [--rounds N]

`plain` interpolates and convolves. What is timed ends in the mean of the squares, so that there is a gradient.
"""

import pytest
import torch

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference

SIZES = {
    "cpu": {"batch": 4, "channels": 256, "low": (20, 20), "full": (80, 80)},
    "voc": {"batch": 16, "channels": 256, "low": (20, 20), "full": (80, 80)},
    "voc-cps": {"batch": 16, "channels": 256, "low": (32, 32), "full": (128, 128)},
    "cityscapes": {"batch": 8, "channels": 256, "low": (50, 50), "full": (200, 200)},
}


def inputs(batch, channels, low, full, dtype, device):
    x = torch.randn(batch, channels, *low, device=device).relu().to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device) / (9 * channels) ** 0.5
    return {"x": x.contiguous(memory_format=torch.channels_last), "weight": weight.to(dtype), "size": full}


def mean_square(operator):
    return lambda **arguments: operator(**arguments).square().mean()


def work(backward, x, weight, size, **_):
    """Multiply-adds, twice each, of the products at the small map and of the interpolations; thrice with gradients."""
    taps, outputs = weight.shape[-1], weight.shape[0]
    h, w = x.shape[-2:]
    products = taps**2 * x.shape[1] * outputs * h * w
    interpolations = outputs * (taps * h * size[0] * taps * w + size[0] * taps * w * size[1])
    return (6 if backward else 2) * len(x) * (products + interpolations)


CONVOLUTION = Operator(
    name="upsample_conv2d",
    sizes=SIZES,
    cpu_sizes=("cpu",),
    tiny={"batch": 2, "channels": 16, "low": (5, 6), "full": (17, 20)},
    inputs=inputs,
    providers={"plain": mean_square(reference.upsample_conv2d), "fused": mean_square(kernels.upsample_conv2d)},
    exact=mean_square(reference.upsample_conv2d),
    work=work,
    unit="TFLOP/s",
    gradients=("x", "weight"),
)


@pytest.mark.operator(CONVOLUTION)
def bench_upsample_conv2d(measure, case):
    measure(case)
