"""Blur, colour and normalisation on a GPU.

A program owns a strip of ROWS rows: a row of the image is loaded and blurred along x once for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl
from ..reference.photometric import COLOUR_BITS, fixed_point, gaussian_taps

BAKED = {
    0: Configuration({"ROWS": 16, "COLUMNS": 32}),
    80: Configuration({"ROWS": 4, "COLUMNS": 128}),
}


@jit
def _reflect(index, length, RADIUS: tl.constexpr):
    """Positions from -RADIUS on, mirrored about the border pixels as often as needed."""
    period = tl.maximum(2 * (length - 1), 1)
    index = (index + RADIUS * period) % period
    return tl.minimum(index, 2 * (length - 1) - index)


@jit
def _channel(red, green, blue, matrix, CHANNEL: tl.constexpr, COLOUR_BITS: tl.constexpr):
    """One channel of the recoloured pixels; `matrix` points at the sample's integers."""
    row = matrix + 4 * CHANNEL
    level = tl.load(row) * red + tl.load(row + 1) * green + tl.load(row + 2) * blue + tl.load(row + 3)
    return tl.minimum(tl.maximum(level >> COLOUR_BITS, 0), 255)


@jit
def _recoloured(red, green, blue, matrix, COLOUR_BITS: tl.constexpr):
    return (
        _channel(red, green, blue, matrix, 0, COLOUR_BITS),
        _channel(red, green, blue, matrix, 1, COLOUR_BITS),
        _channel(red, green, blue, matrix, 2, COLOUR_BITS),
    )


@jit
def _pixels(place, mask, matrix, RECOLOUR: tl.constexpr, COLOUR_BITS: tl.constexpr):
    """The three channels at the pointers `place`."""
    red = tl.load(place, mask=mask, other=0).to(tl.int32)
    green = tl.load(place + 1, mask=mask, other=0).to(tl.int32)
    blue = tl.load(place + 2, mask=mask, other=0).to(tl.int32)
    if RECOLOUR:
        red, green, blue = _recoloured(red, green, blue, matrix, COLOUR_BITS)
    return red, green, blue


@jit
def _normalised(level, mean, std, CHANNEL: tl.constexpr):
    std = tl.load(std + CHANNEL).to(tl.float32)
    return level * (1 / (255 * std)) - tl.load(mean + CHANNEL).to(tl.float32) / std


@jit
def _transform(
    images, matrix, taps, mean, std, result, height, width,
    RADIUS: tl.constexpr, BLUR_LAST: tl.constexpr, COLOUR_BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    top = tl.program_id(1) * ROWS
    strip = tl.arange(0, ROWS)[:, None]
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    place = ((image * height + top + strip) * width + x[None, :]) * 3
    inside = (top + strip < height) & (x < width)[None, :]
    matrix += image * 12
    taps += image * (RADIUS + 1)

    if tl.load(taps) < 256:
        red = tl.zeros((ROWS, COLUMNS), tl.int32)
        green = tl.zeros((ROWS, COLUMNS), tl.int32)
        blue = tl.zeros((ROWS, COLUMNS), tl.int32)
        for step in range(-RADIUS, ROWS + RADIUS):
            row = images + (image * height + _reflect(top + step, height, RADIUS)) * width * 3
            row_red = tl.zeros((COLUMNS,), tl.int32)
            row_green = tl.zeros((COLUMNS,), tl.int32)
            row_blue = tl.zeros((COLUMNS,), tl.int32)
            for offset in tl.static_range(-RADIUS, RADIUS + 1):
                tap = tl.load(taps + (offset if offset > 0 else -offset))
                column = _reflect(x + offset, width, RADIUS)
                one_red, one_green, one_blue = _pixels(row + 3 * column, None, matrix, BLUR_LAST, COLOUR_BITS)
                row_red += tap * one_red
                row_green += tap * one_green
                row_blue += tap * one_blue
            distance = tl.abs(step - strip)
            weight = tl.load(taps + distance, mask=distance <= RADIUS, other=0)
            red += weight * row_red[None, :]
            green += weight * row_green[None, :]
            blue += weight * row_blue[None, :]
        half = 1 << 15
        red, green, blue = (red + half) >> 16, (green + half) >> 16, (blue + half) >> 16
    else:
        red, green, blue = _pixels(images + place, inside, matrix, BLUR_LAST, COLOUR_BITS)
    if not BLUR_LAST:
        red, green, blue = _recoloured(red, green, blue, matrix, COLOUR_BITS)

    out = result + place
    tl.store(out, _normalised(red, mean, std, 0), mask=inside)
    tl.store(out + 1, _normalised(green, mean, std, 1), mask=inside)
    tl.store(out + 2, _normalised(blue, mean, std, 2), mask=inside)


def photometric(
    images: Tensor,
    matrix: Tensor,
    deviation: Tensor,
    mean: Tensor,
    std: Tensor,
    radius: int,
    blur_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Arguments as in `semiseg.kernels.photometric`, with `deviation` 0 where nothing is blurred."""
    batch, height, width, _ = images.shape
    result = images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)
    config = choose("photometric", BAKED, images.device)
    grid = ceil_div(width, config.blocks["COLUMNS"]), ceil_div(height, config.blocks["ROWS"]), batch
    launch(
        _transform, grid, images.contiguous(), fixed_point(matrix).contiguous(), gaussian_taps(deviation, radius),
        mean.contiguous(), std.contiguous(), result, height, width, warps=config.warps, stages=config.stages,
        RADIUS=radius, BLUR_LAST=blur_last, COLOUR_BITS=COLOUR_BITS, **config.blocks,
    )  # fmt: skip
    return result
