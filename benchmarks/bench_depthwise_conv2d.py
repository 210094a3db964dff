"""Depthwise convolutions of EfficientNet-lite0 at the training sizes of own images and of shapes.

    pytest benchmarks/bench_depthwise_conv2d.py [-k "stage-6 and fp32"] [--compiled] [--rounds N]

`plain` is torch's convolution in groups. What is timed ends in the norm, whose gradient has the memory format of the
maps, as that of a normalisation has. Sizes are named by the stage of the network and the crop that it is trained with.
"""

import pytest
import torch

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference


def form(channels, side, taps, dilation=1):
    return {"batch": 4, "channels": channels, "side": side, "taps": taps, "dilation": dilation}


SIZES = {
    "stage-3-crop-320": form(240, 40, 5),
    "stage-5-crop-320": form(672, 20, 5),
    "stage-6-crop-320": form(1152, 20, 5, dilation=2),
    "stage-7-crop-320": form(1152, 20, 3, dilation=2),
    "stage-6-crop-160": form(1152, 10, 5, dilation=2),
    "stage-6-crop-80": form(1152, 5, 5, dilation=2),
}


def inputs(batch, channels, side, taps, dilation, dtype, device):
    x = torch.randn(batch, channels, side, side, device=device).relu().to(dtype)
    weight = torch.randn(channels, 1, taps, taps, device=device).to(dtype) / taps
    maps = x.contiguous(memory_format=torch.channels_last)
    return {"x": maps, "weight": weight, "padding": dilation * (taps // 2), "dilation": dilation}


def length(operator):
    return lambda **arguments: operator(**arguments).norm()


def work(backward, x, weight, **_):
    """Multiply-adds, twice each; thrice with gradients."""
    return (6 if backward else 2) * x.numel() * weight[0].numel()


DEPTHWISE = Operator(
    name="depthwise_conv2d",
    sizes=SIZES,
    cpu_sizes=tuple(SIZES),
    tiny=form(16, 9, 5, dilation=2) | {"batch": 2},
    inputs=inputs,
    providers={"plain": length(reference.depthwise_conv2d), "fused": length(kernels.depthwise_conv2d)},
    exact=length(reference.depthwise_conv2d),
    work=work,
    unit="TFLOP/s",
    gradients=("x", "weight"),
)


@pytest.mark.operator(DEPTHWISE)
def bench_depthwise_conv2d(measure, case):
    measure(case)
