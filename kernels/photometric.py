"""Blur, colour and normalisation of uint8 windows: the last step of augmentation, on the training device.

For each sample, in grey levels 0..255, rounded to uint8 between the steps as OpenCV does:

    1. where blur[b]: separable Gaussian of standard deviation sigma[b], cut at `radius`, reflect-101 borders
    2. y = matrix[b, :, :3] @ rgb + matrix[b, :, 3], rounded and clamped to 0..255
    3. (y / 255 - mean) / std

With `blur_last`, 2 comes before 1. Both are integer arithmetic, the same on every device: taps in 1/256 and
coefficients in 1/1024, as OpenCV has them.

With e bytes a number of the result, 3 + 3 e bytes are moved per pixel for about 30 operations, with a blur of radius 2
for 130; the plain definition moves about 1200 bytes in arrays of int32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, accumulation_dtype, check_flag, check_integer, check_number, check_tensor, listed
from .cpu import photometric as cpu
from .gpu import photometric as gpu
from .reference.photometric import SIGMA

LARGEST_RADIUS = 30


def _empty(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)


@torch.library.custom_op("semiseg::photometric", mutates_args=())
def _operator(
    images: Tensor,
    matrix: Tensor,
    deviation: Tensor,
    mean: Tensor,
    std: Tensor,
    radius: int,
    blur_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    implementation = gpu if _dispatch.provider_of(images) == "triton" else cpu
    return implementation.photometric(images, matrix, deviation, mean, std, radius, blur_last, dtype)


@_operator.register_fake
def _(images, matrix, deviation, mean, std, radius, blur_last, dtype):
    return _empty(images, dtype)


def _per_channel(name: str, values: Tensor | Sequence[float], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(3,) on the device; numbers in float64 for results in it, else in float32."""
    if not isinstance(values, Tensor):
        values = listed(name, values, "three numbers", 3)
        # Filled on the device: a copy from the host would make the host wait.
        wide = accumulation_dtype(dtype)
        numbers = [float(check_number(name, value)) for value in values]
        values = torch.stack([torch.full((), number, dtype=wide, device=device) for number in numbers])
    check_tensor(name, values, (3,), FLOATS, device)
    return values.detach()


def photometric(
    images: Tensor,
    matrix: Tensor,
    blur: Tensor,
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    *,
    sigma: float | Tensor = SIGMA,
    radius: int = 2,
    blur_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Blurred where wanted, recoloured and normalised images.

    images: (B, H, W, 3) uint8, RGB. matrix: (B, 3, 4) float, acts on grey levels 0..255, the last column is added;
    coefficients below 32 in size, rounded to multiples of 1/1024.
    blur: (B,) bool. sigma: the blur's standard deviation in pixels, a number above 0, or (B,) float that blurs nothing
    where it is not. radius: pixels that a blur reaches to each side, 1 to 30. blur_last: blur after recolouring, not
    before.
    mean, std: three numbers or a tensor (3,) each, for images scaled to [0, 1]. dtype: of the result, a float.
    Returns (B, 3, H, W) in channels-last memory format; nothing is differentiated.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("images", images, (None, None, None, 3), (torch.uint8,))
    batch, height, width, _ = images.shape
    if height == 0 or width == 0:
        raise ValueError(f"images are empty: {tuple(images.shape)}")
    check_tensor("matrix", matrix, (batch, 3, 4), FLOATS, images.device)
    check_tensor("blur", blur, (batch,), (torch.bool,), images.device)
    if isinstance(sigma, Tensor):
        check_tensor("sigma", sigma, (batch,), FLOATS, images.device)
    else:
        sigma = check_number("sigma", sigma)
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, not {sigma}")
    check_integer("radius", radius)
    check_flag("blur_last", blur_last)
    if not 1 <= radius <= LARGEST_RADIUS:
        raise ValueError(f"radius must be from 1 to {LARGEST_RADIUS}, not {radius}")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be one of {', '.join(str(d) for d in FLOATS)}, not {dtype}")
    mean, std = (_per_channel(name, values, images.device, dtype) for name, values in (("mean", mean), ("std", std)))
    if dtype == torch.float64 or _dispatch.provider_of(images, "photometric") == "plain":
        return reference.photometric(
            images, matrix, blur, mean, std, sigma=sigma, radius=radius, blur_last=blur_last, dtype=dtype
        )
    deviation = (blur * sigma).detach()
    return _operator(images, matrix.detach(), deviation, mean.detach(), std.detach(), radius, blur_last, dtype)
