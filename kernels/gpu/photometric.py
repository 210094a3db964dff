"""Blur, colour and normalisation on a GPU.

A program owns a strip of ROWS rows: a row of the image is loaded and blurred along x once for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl
from ..reference.photometric import COLOUR_BITS, GAUSSIAN, fixed_point

BAKED = {
    0: Configuration({"ROWS": 16, "COLUMNS": 32}),
    80: Configuration({"ROWS": 4, "COLUMNS": 128}),
}


@jit
def _reflect(index, length):
    """Positions from -2 on, mirrored about the border pixels as often as needed."""
    period = tl.maximum(2 * (length - 1), 1)
    index = (index + 2 * period) % period
    return tl.minimum(index, 2 * (length - 1) - index)


@jit
def _tap(distance, CENTRE: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr):
    return tl.where(distance == 0, CENTRE, tl.where(distance == 1, NEAR, tl.where(distance == 2, FAR, 0)))


@jit
def _blurred_along_x(row, x, width, CENTRE: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr):
    """256 times the blurred values at `x` (COLUMNS,) of one channel of the row at pointer `row`."""
    left2, left1 = tl.load(row + 3 * _reflect(x - 2, width)), tl.load(row + 3 * _reflect(x - 1, width))
    right1, right2 = tl.load(row + 3 * _reflect(x + 1, width)), tl.load(row + 3 * _reflect(x + 2, width))
    far, near = left2.to(tl.int32) + right2.to(tl.int32), left1.to(tl.int32) + right1.to(tl.int32)
    return FAR * far + NEAR * near + CENTRE * tl.load(row + 3 * _reflect(x, width)).to(tl.int32)


@jit
def _normalised(red, green, blue, matrix, mean, std, CHANNEL: tl.constexpr, COLOUR_BITS: tl.constexpr):
    """One channel of the result from the three of the image; `matrix` points at the sample's integers."""
    row = matrix + 4 * CHANNEL
    level = tl.load(row) * red + tl.load(row + 1) * green + tl.load(row + 2) * blue + tl.load(row + 3)
    level = tl.minimum(tl.maximum(level >> COLOUR_BITS, 0), 255)
    std = tl.load(std + CHANNEL).to(tl.float32)
    return level * (1 / (255 * std)) - tl.load(mean + CHANNEL).to(tl.float32) / std


@jit(any_size=("height", "width"))
def _transform(
    images, matrix, blur, mean, std, result, height, width,
    CENTRE: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr, COLOUR_BITS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    top = tl.program_id(1) * ROWS
    strip = tl.arange(0, ROWS)[:, None]
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    place = ((image * height + top + strip) * width + x[None, :]) * 3
    inside = (top + strip < height) & (x < width)[None, :]

    if tl.load(blur + image):
        red = tl.zeros((ROWS, COLUMNS), tl.int32)
        green = tl.zeros((ROWS, COLUMNS), tl.int32)
        blue = tl.zeros((ROWS, COLUMNS), tl.int32)
        for step in range(-2, ROWS + 2):
            row = images + (image * height + _reflect(top + step, height)) * width * 3
            weight = _tap(tl.abs(step - strip), CENTRE, NEAR, FAR)
            red += weight * _blurred_along_x(row, x, width, CENTRE, NEAR, FAR)[None, :]
            green += weight * _blurred_along_x(row + 1, x, width, CENTRE, NEAR, FAR)[None, :]
            blue += weight * _blurred_along_x(row + 2, x, width, CENTRE, NEAR, FAR)[None, :]
        half = 1 << 15
        red, green, blue = (red + half) >> 16, (green + half) >> 16, (blue + half) >> 16
    else:
        red = tl.load(images + place, mask=inside, other=0).to(tl.int32)
        green = tl.load(images + place + 1, mask=inside, other=0).to(tl.int32)
        blue = tl.load(images + place + 2, mask=inside, other=0).to(tl.int32)

    out = result + place
    tl.store(out, _normalised(red, green, blue, matrix + image * 12, mean, std, 0, COLOUR_BITS), mask=inside)
    tl.store(out + 1, _normalised(red, green, blue, matrix + image * 12, mean, std, 1, COLOUR_BITS), mask=inside)
    tl.store(out + 2, _normalised(red, green, blue, matrix + image * 12, mean, std, 2, COLOUR_BITS), mask=inside)


def photometric(images: Tensor, matrix: Tensor, blur: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Arguments as in `semiseg.kernels.photometric`."""
    batch, height, width, _ = images.shape
    result = images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)
    config = choose("photometric", BAKED, images.device)
    grid = ceil_div(width, config.blocks["COLUMNS"]), ceil_div(height, config.blocks["ROWS"]), batch
    far, near, centre = GAUSSIAN[:3]
    launch(
        _transform, grid, images.contiguous(), fixed_point(matrix).contiguous(), blur.contiguous(), mean.contiguous(),
        std.contiguous(), result, height, width, warps=config.warps, stages=config.stages,
        CENTRE=centre, NEAR=near, FAR=far, COLOUR_BITS=COLOUR_BITS, **config.blocks,
    )  # fmt: skip
    return result
