"""Blur, colour and normalisation of uint8 windows, at the training sizes of CAC.

    pytest benchmarks/bench_photometric.py [-k "cityscapes and bf16"] [--compiled] [--rounds N]

`plain` does it in float32: a convolution, a product with the colour matrix, rounding to grey levels in between. The
fused form is OpenCV's integer arithmetic, hence the error of `plain`, up to a grey level.
"""

import pytest
import torch
import torch.nn.functional as F

from comparison import Operator
from semiseg import kernels
from semiseg.kernels import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def inputs(batch, size, dtype, device):
    """Half of the images are blurred, all have colours of their own."""
    matrix = torch.eye(3, 4) + 0.1 * torch.randn(batch, 3, 4) * torch.tensor([1.0, 1.0, 1.0, 100.0])
    return {
        "images": torch.randint(256, (batch, *size, 3), dtype=torch.uint8, device=device),
        **{"matrix": matrix.to(device), "blur": (torch.arange(batch) % 2 == 0).to(device)},
        **{"mean": torch.tensor(MEAN, device=device), "std": torch.tensor(STD, device=device), "dtype": dtype},
    }


def plain(images, matrix, blur, mean, std, dtype):
    levels = images.permute(0, 3, 1, 2).float()
    taps = torch.exp(-(torch.arange(-2, 3, device=images.device) ** 2) / (2 * 1.1**2))
    taps = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(levels, (2, 2, 2, 2), mode="reflect")
    blurred = F.conv2d(padded, taps.expand(3, 1, 5, 5), groups=3).round()
    levels = torch.where(blur[:, None, None, None], blurred, levels)
    levels = torch.einsum("bij,bjhw->bihw", matrix[:, :, :3], levels) + matrix[:, :, 3, None, None]
    levels = levels.round().clamp(0, 255)
    return ((levels / 255 - mean[:, None, None]) / std[:, None, None]).to(dtype)


def work(backward, images, dtype, **_):
    """Three bytes are read and three numbers written for each pixel."""
    return images.numel() * (1 + dtype.itemsize)


PHOTOMETRIC = Operator(
    name="photometric",
    sizes={"voc": {"batch": 16, "size": (320, 320)}, "cityscapes": {"batch": 16, "size": (720, 720)}},
    cpu_sizes=("voc",),
    tiny={"batch": 2, "size": (33, 40)},
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
