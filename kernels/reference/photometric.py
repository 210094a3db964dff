"""Plain definition of blur, colour and normalisation of uint8 windows, in OpenCV's fixed-point arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COLOUR_BITS = 10
"""Colour coefficients are rounded to multiples of 2**-10, as in cv2.transform."""

SIGMA = 1.1
"""The blur's standard deviation, pixels, unless another is given."""


def gaussian_taps(deviation: Tensor, radius: int) -> Tensor:
    """(B,) standard deviations -> (B, radius + 1) int32: 256 times the Gaussian at the distances 0 to `radius`, which
    sums to 1 over both sides. 256, 0, 0 ... where it is not above 0.

    Sums from the far end are rounded, as OpenCV does, not the taps: the shape is kept, however small they are.
    """
    distance = torch.arange(radius, -1, -1, dtype=torch.float64, device=deviation.device)
    deviation = deviation.double().nan_to_num(0).clamp(min=1e-3)
    gaussian = torch.exp(-0.5 * (distance / deviation[:, None]) ** 2)
    share = gaussian[:, :-1] / (2 * gaussian[:, :-1].sum(1, keepdim=True) + 1)
    sums = (256 * share).cumsum(1).round().int()
    return torch.cat([256 - 2 * sums[:, -1:], sums.diff(dim=1, prepend=torch.zeros_like(sums[:, :1])).flip(1)], 1)


def gaussian_blur(images: Tensor, deviation: Tensor, radius: int) -> Tensor:
    """(B, H, W, 3) int32 grey levels -> the same, blurred by separable Gaussians with reflect-101 borders,
    whose standard deviations (B,) may be 0."""
    taps = gaussian_taps(deviation, radius)[:, :, None, None, None]
    for dim in (1, 2):
        length = images.shape[dim]
        centre = torch.arange(length, device=images.device)
        blurred = torch.zeros_like(images)
        for offset in range(-radius, radius + 1):
            blurred = blurred + taps[:, abs(offset)] * images.index_select(dim, reflect(centre + offset, length))
        images = blurred
    return (images + (1 << 15)) >> 16


def reflect(index: Tensor, length: int) -> Tensor:
    """Positions outside [0, length) mirrored about the border pixels, as often as needed (OpenCV's reflect-101)."""
    if length == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * length - 2)
    return torch.minimum(index, 2 * length - 2 - index)


def fixed_point(matrix: Tensor) -> Tensor:
    """(B, 3, 4) float matrices -> int32 multiples of 2**-COLOUR_BITS; the last column includes the half that makes a
    final shift round instead of truncate."""
    scaled = matrix.float() * (1 << COLOUR_BITS)
    scaled[:, :, 3] += 1 << (COLOUR_BITS - 1)
    return scaled.round().int()


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """(B, H, W, 3) int32 grey levels under (B, 3, 4) float matrices -> int32, rounded and clamped to 0..255."""
    matrix = fixed_point(matrix)[:, None, None]
    weighted = (matrix[..., :3] * images[..., None, :]).sum(-1, dtype=torch.int32)
    return (weighted + matrix[..., 3] >> COLOUR_BITS).clamp(0, 255)


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
    dtype: torch.dtype,
) -> Tensor:
    """Arguments as in `semiseg.kernels.photometric`."""
    deviation = blur * sigma
    if blur_last:
        levels = gaussian_blur(recolour(images.int(), matrix), deviation, radius)
    else:
        levels = recolour(gaussian_blur(images.int(), deviation, radius), matrix)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    mean, std = (torch.as_tensor(values, dtype=work, device=images.device) for values in (mean, std))
    normalised = (levels.to(work) / 255 - mean) / std
    return normalised.to(dtype).contiguous().permute(0, 3, 1, 2)
