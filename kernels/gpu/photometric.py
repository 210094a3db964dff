"""Blur, colour and normalisation on a GPU.

A program owns a strip of ROWS rows: a row of the image is loaded and blurred along x once for all of them. Where blur
comes last, another kernel recolours the bytes first.
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
RECOLOURED = 1024  # pixels a program


@jit
def _reflect(index, length, RADIUS: tl.constexpr):
    """Positions from -RADIUS on, mirrored about the border pixels as often as needed."""
    period = tl.maximum(2 * (length - 1), 1)
    index = (index + RADIUS * period) % period
    return tl.minimum(index, 2 * (length - 1) - index)


@jit
def _blurred_along_x(row, x, width, taps, RADIUS: tl.constexpr):
    """256 times the blurred values at `x` (COLUMNS,) of one channel of the row at pointer `row`."""
    total = tl.load(taps) * tl.load(row + 3 * _reflect(x, width, RADIUS)).to(tl.int32)
    for distance in tl.static_range(1, RADIUS + 1):
        left = tl.load(row + 3 * _reflect(x - distance, width, RADIUS)).to(tl.int32)
        right = tl.load(row + 3 * _reflect(x + distance, width, RADIUS)).to(tl.int32)
        total += tl.load(taps + distance) * (left + right)
    return total


@jit
def _recoloured(red, green, blue, matrix, CHANNEL: tl.constexpr, COLOUR_BITS: tl.constexpr):
    """One channel of the result from the three of the image; `matrix` points at the sample's integers."""
    row = matrix + 4 * CHANNEL
    level = tl.load(row) * red + tl.load(row + 1) * green + tl.load(row + 2) * blue + tl.load(row + 3)
    return tl.minimum(tl.maximum(level >> COLOUR_BITS, 0), 255)


@jit
def _normalised(level, mean, std, CHANNEL: tl.constexpr):
    std = tl.load(std + CHANNEL).to(tl.float32)
    return level * (1 / (255 * std)) - tl.load(mean + CHANNEL).to(tl.float32) / std


@jit
def _recolour(images, matrix, result, pixels, COLOUR_BITS: tl.constexpr, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    place = (image * pixels + pixel) * 3
    red = tl.load(images + place, mask=inside, other=0).to(tl.int32)
    green = tl.load(images + place + 1, mask=inside, other=0).to(tl.int32)
    blue = tl.load(images + place + 2, mask=inside, other=0).to(tl.int32)
    matrix += image * 12
    tl.store(result + place, _recoloured(red, green, blue, matrix, 0, COLOUR_BITS).to(tl.uint8), mask=inside)
    tl.store(result + place + 1, _recoloured(red, green, blue, matrix, 1, COLOUR_BITS).to(tl.uint8), mask=inside)
    tl.store(result + place + 2, _recoloured(red, green, blue, matrix, 2, COLOUR_BITS).to(tl.uint8), mask=inside)


@jit(any_size=("height", "width"))
def _transform(
    images, matrix, taps, mean, std, result, height, width,
    RADIUS: tl.constexpr, COLOUR_BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
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
            distance = tl.abs(step - strip)
            weight = tl.load(taps + distance, mask=distance <= RADIUS, other=0)
            red += weight * _blurred_along_x(row, x, width, taps, RADIUS)[None, :]
            green += weight * _blurred_along_x(row + 1, x, width, taps, RADIUS)[None, :]
            blue += weight * _blurred_along_x(row + 2, x, width, taps, RADIUS)[None, :]
        half = 1 << 15
        red, green, blue = (red + half) >> 16, (green + half) >> 16, (blue + half) >> 16
    else:
        red = tl.load(images + place, mask=inside, other=0).to(tl.int32)
        green = tl.load(images + place + 1, mask=inside, other=0).to(tl.int32)
        blue = tl.load(images + place + 2, mask=inside, other=0).to(tl.int32)

    out = result + place
    new_red = _recoloured(red, green, blue, matrix, 0, COLOUR_BITS)
    new_green = _recoloured(red, green, blue, matrix, 1, COLOUR_BITS)
    new_blue = _recoloured(red, green, blue, matrix, 2, COLOUR_BITS)
    tl.store(out, _normalised(new_red, mean, std, 0), mask=inside)
    tl.store(out + 1, _normalised(new_green, mean, std, 1), mask=inside)
    tl.store(out + 2, _normalised(new_blue, mean, std, 2), mask=inside)


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
    """Arguments as in `semiseg.kernels.photometric`, with `deviation` not above 0 where nothing is blurred."""
    batch, height, width, _ = images.shape
    images, matrix = images.contiguous(), fixed_point(matrix).contiguous()
    if blur_last:
        # Each pixel is recoloured once, and not for every pixel that it is blurred into.
        sharp, images = images, torch.empty_like(images)
        pixels = ceil_div(height * width, RECOLOURED), batch
        launch(_recolour, pixels, sharp, matrix, images, height * width, COLOUR_BITS=COLOUR_BITS, BLOCK=RECOLOURED)
        matrix = fixed_point(torch.eye(3, 4, device=images.device).expand(batch, 3, 4)).contiguous()
    result = images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)
    config = choose("photometric", BAKED, images.device)
    grid = ceil_div(width, config.blocks["COLUMNS"]), ceil_div(height, config.blocks["ROWS"]), batch
    launch(
        _transform, grid, images, matrix, gaussian_taps(deviation, radius).contiguous(), mean.contiguous(),
        std.contiguous(), result, height, width, warps=config.warps, stages=config.stages,
        RADIUS=radius, COLOUR_BITS=COLOUR_BITS, **config.blocks,
    )  # fmt: skip
    return result
