"""Bilinear upsampling on the CPU, one tile at a time.

Upsampling is linear and separable, full = A_y low A_x^T, and each row of A has two entries. A tile of the result needs
a small block of the input only, which makes two dense products of small matrices cheaper than gathering: for a factor
of 4, about 2 (W_tile / 4 + 2) FLOPs per value. The gradient is the transpose, low += A_y^T tile A_x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

TILE_COLUMNS = 192
TILE_VALUES = 1 << 19
"""One tile is about 2 MiB of float32, so that the passes over it stay in cache."""


def taps(low: int, full: int, align_corners: bool) -> Tensor:
    """The interpolation matrix (full, low) in float32, computed in float64, with the conventions of F.interpolate."""
    position = torch.arange(full, dtype=torch.float64)
    if align_corners:
        source = position * ((low - 1) / (full - 1) if full > 1 else 0.0)
    else:
        source = ((position + 0.5) * (low / full) - 0.5).clamp(min=0)
    left = source.long().clamp(max=low - 1)
    right = (left + 1).clamp(max=low - 1)
    fraction = (source - left)[:, None]
    matrix = torch.zeros(full, low, dtype=torch.float64)
    matrix.scatter_add_(1, left[:, None], 1 - fraction).scatter_add_(1, right[:, None], fraction)
    return matrix.float()


def touched(matrix: Tensor, rows: slice) -> slice:
    """The columns of an interpolation matrix between the first and the last non-zero entry of `rows`."""
    columns = (matrix[rows] != 0).any(0).nonzero()
    return slice(int(columns[0]), int(columns[-1]) + 1)


def cuts(length: int, step: int) -> list[slice]:
    """[0, length) in slices of at most `step`, as equal as possible."""
    count = -(-length // step)
    return [slice(length * i // count, length * (i + 1) // count) for i in range(count)]


def upsampled_tiles(
    logits: Tensor, size: Sequence[int], align_corners: bool, gradient: Tensor | None = None
) -> Iterator[tuple[tuple[int, slice, slice], Tensor]]:
    """Yield (place, values) over the upsampled (B, C, H, W): `place` indexes a (B, H, W) map, `values` is (C, pixels).

    `values` is float32, and its memory is used again for the next tile. With `gradient` (B, C, h, w) float32, zero at
    first, whatever the caller leaves in `values` before asking for the next tile is taken as the gradient with respect
    to the tile, and its pull-back is added to `gradient`.
    """
    batch, channels, height, width = logits.shape
    vertical, horizontal = taps(height, size[0], align_corners), taps(width, size[1], align_corners)
    column_cuts = cuts(size[1], TILE_COLUMNS)
    widest = max(columns.stop - columns.start for columns in column_cuts)
    row_cuts = cuts(size[0], max(1, TILE_VALUES // (channels * widest)))
    tallest = max(rows.stop - rows.start for rows in row_cuts)
    columns_touched = [(columns, touched(horizontal, columns)) for columns in column_cuts]
    rows_touched = [(rows, touched(vertical, rows)) for rows in row_cuts]
    buffer = torch.empty(channels * tallest * widest, dtype=torch.float32)

    for image in range(batch):
        low = logits[image].float().contiguous()
        for rows, low_rows in rows_touched:
            down = vertical[rows, low_rows]
            strip = torch.matmul(down, low[:, low_rows]).view(-1, width)
            strip_gradient = None if gradient is None else torch.zeros_like(strip)
            for columns, low_columns in columns_touched:
                across = horizontal[columns, low_columns]
                values = buffer[: strip.shape[0] * across.shape[0]].view(strip.shape[0], across.shape[0])
                torch.mm(strip[:, low_columns], across.T, out=values)
                yield (image, rows, columns), values.view(channels, -1)
                if strip_gradient is not None:
                    strip_gradient[:, low_columns].addmm_(values, across)
            if gradient is not None and strip_gradient is not None:
                pulled = torch.matmul(down.T, strip_gradient.view(channels, -1, width))
                gradient[image, :, low_rows] += pulled
