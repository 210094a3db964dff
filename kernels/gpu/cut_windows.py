"""Windows of decoded images on a GPU.

A program owns a tile of ROWS x COLUMNS pixels of one window and reads each of its taps from memory: neighbouring pixels
share them in the cache. The filter's weights are computed where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl

BAKED = {
    0: Configuration({"ROWS": 32, "COLUMNS": 32}),
    80: Configuration({"ROWS": 8, "COLUMNS": 32}),
}
CODES = {"nearest": 0, "linear": 1, "antialiased": 2, "cubic": 3}


@jit
def _weight(distance, CUBIC: tl.constexpr):
    x = tl.abs(distance)
    if CUBIC:
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        return tl.where(x < 1, near, tl.where(x < 2, far, 0.0))
    return tl.maximum(1 - x, 0.0)


@jit
def _level(total):
    """Rounded half to even, as numbers of this size are when all their fraction is lost, and clamped."""
    return tl.minimum(tl.maximum((total + 12582912.0) - 12582912.0, 0.0), 255.0)


@jit
def _read(pixels, index, exists, total):
    return tl.load(pixels + index, mask=exists & (index >= 0) & (index < total), other=0)


@jit(any_size=("size", "total", "red", "green", "blue"))
def _cut(
    pixels, places, result, size, total, red, green, blue,
    FIELDS: tl.constexpr, FILTER: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    window = tl.program_id(2).to(tl.int64)
    place = places + window * FIELDS
    start, stride = tl.load(place), tl.load(place + 1)
    origin_y, origin_x = tl.load(place + 2), tl.load(place + 3)
    source_height, source_width = tl.load(place + 4).to(tl.int32), tl.load(place + 5).to(tl.int32)
    step = tl.load(place + 6).to(tl.int32)
    offset_y, offset_x = tl.load(place + 7).to(tl.int32), tl.load(place + 8).to(tl.int32)
    height, width = tl.load(place + 9).to(tl.int32), tl.load(place + 10).to(tl.int32)
    top, left = tl.load(place + 11).to(tl.int32), tl.load(place + 12).to(tl.int32)
    flip = tl.load(place + 13)

    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    across = tl.where(flip != 0, size - 1 - column, column)
    covered = ((row >= top) & (row < top + height))[:, None] & ((across >= left) & (across < left + width))[None, :]
    # Twice the centre of each pixel, in units of 1/1024 source pixel.
    twice_y = (2 * (offset_y + row - top) + 1) * step
    twice_x = (2 * (offset_x + across - left) + 1) * step

    out = result + ((window * size + row[:, None]) * size + column[None, :]) * CHANNELS
    exists = (row < size)[:, None] & (column < size)[None, :]
    corner = start + (origin_y * stride + origin_x) * CHANNELS
    if FILTER == 0:
        index = corner + ((twice_y >> 11)[:, None] * stride + (twice_x >> 11)[None, :]) * CHANNELS
        first = _read(pixels, index, covered, total)
        tl.store(out, tl.where(covered, first, red).to(tl.uint8), mask=exists)
        if CHANNELS == 3:
            second = _read(pixels, index + 1, covered, total)
            third = _read(pixels, index + 2, covered, total)
            tl.store(out + 1, tl.where(covered, second, green).to(tl.uint8), mask=exists)
            tl.store(out + 2, tl.where(covered, third, blue).to(tl.uint8), mask=exists)
    else:
        centre_y, centre_x = twice_y.to(tl.float32) / 2048, twice_x.to(tl.float32) / 2048
        reach = 1.0
        if FILTER >= 2:
            reach = tl.maximum(step.to(tl.float32) / 1024, 1.0)
        support = reach
        if FILTER == 3:
            support = 2 * reach
        taps = tl.ceil(2 * support).to(tl.int32) + 1
        first_y = tl.maximum(tl.floor(centre_y - support + 0.5).to(tl.int32), 0)
        first_x = tl.maximum(tl.floor(centre_x - support + 0.5).to(tl.int32), 0)
        sum_x = tl.zeros((COLUMNS,), tl.float32)
        for tap in range(taps):
            x = first_x + tap
            weight = _weight((centre_x - x.to(tl.float32) - 0.5) / reach, FILTER == 3)
            sum_x += tl.where(x < source_width, weight, 0.0)
        sum_y = tl.zeros((ROWS,), tl.float32)
        reds = tl.zeros((ROWS, COLUMNS), tl.float32)
        greens = tl.zeros((ROWS, COLUMNS), tl.float32)
        blues = tl.zeros((ROWS, COLUMNS), tl.float32)
        for tap_y in range(taps):
            y = first_y + tap_y
            weight_y = _weight((centre_y - y.to(tl.float32) - 0.5) / reach, FILTER == 3)
            weight_y = tl.where(y < source_height, weight_y, 0.0)
            sum_y += weight_y
            for tap_x in range(taps):
                x = first_x + tap_x
                weight_x = _weight((centre_x - x.to(tl.float32) - 0.5) / reach, FILTER == 3)
                weight = weight_y[:, None] * tl.where(x < source_width, weight_x, 0.0)[None, :]
                counts = covered & (y < source_height)[:, None] & (x < source_width)[None, :]
                index = corner + (y[:, None] * stride + x[None, :]) * CHANNELS
                reds += weight * _read(pixels, index, counts, total).to(tl.float32)
                if CHANNELS == 3:
                    greens += weight * _read(pixels, index + 1, counts, total).to(tl.float32)
                    blues += weight * _read(pixels, index + 2, counts, total).to(tl.float32)
        share = sum_y[:, None] * sum_x[None, :]
        share = tl.where(covered, share, 1.0)
        tl.store(out, tl.where(covered, _level(reds / share), red).to(tl.uint8), mask=exists)
        if CHANNELS == 3:
            tl.store(out + 1, tl.where(covered, _level(greens / share), green).to(tl.uint8), mask=exists)
            tl.store(out + 2, tl.where(covered, _level(blues / share), blue).to(tl.uint8), mask=exists)


def cut_windows(
    pixels: Tensor, places: Tensor, result: Tensor, channels: int, filter: str, fill: Sequence[int]
) -> Tensor:
    """Fills `result`, and returns it. Arguments as in `semiseg.kernels.cut_windows`."""
    if not result.numel():
        return result
    size = result.shape[1]
    config = choose("cut_windows", BAKED, pixels.device)
    grid = ceil_div(size, config.blocks["COLUMNS"]), ceil_div(size, config.blocks["ROWS"]), len(result)
    launch(
        _cut, grid, pixels.contiguous(), places.contiguous(), result, size, pixels.numel(), *fill,
        warps=config.warps, stages=config.stages, FIELDS=places.shape[1], FILTER=CODES[filter], CHANNELS=channels,
        **config.blocks,
    )  # fmt: skip
    return result
