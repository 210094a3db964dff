"""Blur, colour and normalisation of uint8 windows, at the training sizes of CAC and for the strong views of UniMatch,
whose blur comes last and has a standard deviation for each image.

    pytest benchmarks/bench_photometric.py [-k "strong and bf16"] [--compiled] [--rounds N]

`plain` does it in float32: convolutions, a product with the colour matrix, rounding to grey levels in between. The
fused form is OpenCV's integer arithmetic, hence the error of `plain`, up to a grey level.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from operator_benchmark import Operator
from semiseg import kernels
from semiseg.kernels import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def inputs(batch, size, dtype, device, strong=False):
    """Half of the images are blurred, all have colours of their own."""
    sigma = torch.linspace(0.1, 2.0, batch) if strong else torch.full((batch,), 1.1)
    matrix = torch.eye(3, 4) + 0.1 * torch.randn(batch, 3, 4) * torch.tensor([1.0, 1.0, 1.0, 100.0])
    return {
        "images": torch.randint(256, (batch, *size, 3), dtype=torch.uint8, device=device),
        "matrix": matrix.to(device),
        "blur": (torch.arange(batch) % 2 == 0).to(device),
        "sigma": sigma.to(device),
        "radius": 6 if strong else 2,
        "blur_last": strong,
        "mean": torch.tensor(MEAN, device=device),
        "std": torch.tensor(STD, device=device),
        "dtype": dtype,
    }


def plain(images, matrix, blur, mean, std, sigma, radius, blur_last, dtype):
    levels = images.permute(0, 3, 1, 2).float()
    steps = [partial(blurred, blur=blur, sigma=sigma, radius=radius), partial(recoloured, matrix=matrix)]
    for step in reversed(steps) if blur_last else steps:
        levels = step(levels)
    return ((levels / 255 - mean[:, None, None]) / std[:, None, None]).to(dtype)


def blurred(levels, blur, sigma, radius):
    """A convolution along rows and one along columns, of every channel of every image apart."""
    distance = torch.arange(-radius, radius + 1, device=levels.device)
    taps = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    smooth = F.pad(levels, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    for weights in (taps[:, :, None, :], taps[:, :, :, None]):
        smooth = F.conv2d(smooth, weights, groups=len(weights))
    return torch.where(blur[:, None, None, None], smooth.view_as(levels).round(), levels)


def recoloured(levels, matrix):
    levels = torch.einsum("bij,bjhw->bihw", matrix[:, :, :3], levels) + matrix[:, :, 3, None, None]
    return levels.round().clamp(0, 255)


def work(backward, images, dtype, **_):
    """Three bytes are read and three numbers written for each pixel."""
    return images.numel() * (1 + dtype.itemsize)


PHOTOMETRIC = Operator(
    name="photometric",
    sizes={
        "voc": {"batch": 16, "size": (320, 320)},
        "cityscapes": {"batch": 16, "size": (720, 720)},
        "voc-strong": {"batch": 16, "size": (321, 321), "strong": True},
    },
    cpu_sizes=("voc", "voc-strong"),
    tiny={"batch": 2, "size": (33, 40), "strong": True},
    inputs=inputs,
    providers={"plain": plain, "fused": kernels.photometric},
    exact=reference.photometric,
    work=work,
    unit="GB/s",
    autocast=False,
)


@pytest.mark.operator(PHOTOMETRIC)
def bench_photometric(measure, case):
    measure(case)
