"""Plain definition of blur, colour and normalisation of uint8 windows, in OpenCV's fixed-point arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

GAUSSIAN = (18, 63, 94, 63, 18)
"""256 times the taps of the Gaussian with width 5 and sigma 1.1, as OpenCV rounds them."""
COLOUR_BITS = 10
"""Colour coefficients are rounded to multiples of 2**-10, as in cv2.transform."""


def gaussian_blur(images: Tensor) -> Tensor:
    """(B, H, W, 3) int32 grey levels -> the same, blurred by the separable 5x5 Gaussian with reflect-101 borders."""
    for dim in (1, 2):
        length = images.shape[dim]
        centre = torch.arange(length, device=images.device)
        taps = zip(range(-2, 3), GAUSSIAN)
        images = sum(tap * images.index_select(dim, reflect(centre + offset, length)) for offset, tap in taps)
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
    images: Tensor, matrix: Tensor, blur: Tensor, mean: Tensor, std: Tensor, *, dtype: torch.dtype
) -> Tensor:
    """Arguments as in `semiseg.kernels.photometric`, with `mean` and `std` as tensors (3,) on the images' device."""
    levels = images.int()
    levels = torch.where(blur[:, None, None, None], gaussian_blur(levels), levels)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    normalised = (recolour(levels, matrix).to(work) / 255 - mean.to(work)) / std.to(work)
    return normalised.to(dtype).contiguous().permute(0, 3, 1, 2)
