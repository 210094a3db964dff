"""Bilinear upsampling on a GPU: a program makes PIXELS x CHANNELS values, of the maps or of their gradient.

Maps are dense in one of two orders, pixels of a channel in a row or channels of a pixel; a step from pixel to pixel and
from channel to channel is an argument each, and the one that is 1 is what neighbouring threads share out. A gradient
reads each of its pixels four times, from cache but for the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl
from .bilinear import SIZES, check_positions, first_pixel, source, support, taps_around

BAKED = {
    torch.channels_last: {
        0: Configuration({"PIXELS": 64, "CHANNELS": 16}),
        80: Configuration({"PIXELS": 16, "CHANNELS": 64}),
    },
    torch.contiguous_format: {
        0: Configuration({"PIXELS": 256, "CHANNELS": 4}),
        80: Configuration({"PIXELS": 256, "CHANNELS": 1}),
    },
}


@jit
def _tile(places, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """This program's places (PIXELS,), its channels (CHANNELS,), which of the values exist, and its image."""
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return place, channel, (place < places)[:, None] & (channel < channels)[None, :], tl.program_id(2).to(tl.int64)


@jit
def _offset(place, channel, pixel_step, channel_step):
    return place.to(tl.int64)[:, None] * pixel_step + channel.to(tl.int64)[None, :] * channel_step


@jit(any_size=SIZES)
def _interpolate(
    maps, result, channels, low_height, low_width, full_height, full_width, pixel_step, channel_step, full_pixel_step,
    full_channel_step, ALIGN_CORNERS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    places = full_height * full_width
    place, channel, exists, image = _tile(places, channels, PIXELS, CHANNELS)
    y, y_fraction = source(tl.minimum(place // full_width, full_height - 1), low_height, full_height, ALIGN_CORNERS)
    x, x_fraction = source(place % full_width, low_width, full_width, ALIGN_CORNERS)
    row, next_row = y * low_width, tl.minimum(y + 1, low_height - 1) * low_width
    next_x = tl.minimum(x + 1, low_width - 1)
    y_fraction, x_fraction = y_fraction[:, None], x_fraction[:, None]

    maps += image * channels * low_height * low_width
    above0 = tl.load(maps + _offset(row + x, channel, pixel_step, channel_step), mask=exists, other=0.0)
    above1 = tl.load(maps + _offset(row + next_x, channel, pixel_step, channel_step), mask=exists, other=0.0)
    below0 = tl.load(maps + _offset(next_row + x, channel, pixel_step, channel_step), mask=exists, other=0.0)
    below1 = tl.load(maps + _offset(next_row + next_x, channel, pixel_step, channel_step), mask=exists, other=0.0)
    above = above0.to(tl.float32) * (1 - x_fraction) + above1.to(tl.float32) * x_fraction
    below = below0.to(tl.float32) * (1 - x_fraction) + below1.to(tl.float32) * x_fraction
    value = above * (1 - y_fraction) + below * y_fraction
    result += image * channels * places
    tl.store(result + _offset(place, channel, full_pixel_step, full_channel_step), value, mask=exists)


@jit(any_size=(*SIZES, "y_support", "x_support"))
def _gather(
    gradient, result, channels, low_height, low_width, full_height, full_width, pixel_step, channel_step,
    full_pixel_step, full_channel_step, y_support, x_support,
    ALIGN_CORNERS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Transpose of `_interpolate`, from (full_height, full_width) to (low_height, low_width)."""
    node, channel, exists, image = _tile(low_height * low_width, channels, PIXELS, CHANNELS)
    node_y, node_x = node // low_width, node % low_width
    y_first = first_pixel(node_y, low_height, full_height, ALIGN_CORNERS)
    x_first = first_pixel(node_x, low_width, full_width, ALIGN_CORNERS)

    gradient += image * channels * full_height * full_width
    sums = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for y_step in range(y_support):
        y = y_first + y_step
        _, y_weight, _ = taps_around(y, node_y, low_height, full_height, ALIGN_CORNERS)
        for x_step in range(x_support):
            x = x_first + x_step
            _, x_weight, _ = taps_around(x, node_x, low_width, full_width, ALIGN_CORNERS)
            weight = (y_weight * x_weight)[:, None]
            place = y * full_width + x
            value = tl.load(
                gradient + _offset(place, channel, full_pixel_step, full_channel_step),
                mask=exists & (weight > 0), other=0.0,
            )  # fmt: skip
            sums += weight * value.to(tl.float32)
    result += image * channels * low_height * low_width
    # The minimum hides that nodes are neighbours in memory: the sums stay where the loop has them.
    node = tl.minimum(node, low_height * low_width - 1)
    tl.store(result + _offset(node, channel, pixel_step, channel_step), sums, mask=exists)


def upsample(maps: Tensor, size: Sequence[int], align_corners: bool, order: torch.memory_format) -> Tensor:
    """Maps (B, C, h, w) at `size`, in the memory format `order`."""
    maps = maps.contiguous(memory_format=order)
    result = torch.empty((*maps.shape[:2], *size), dtype=maps.dtype, device=maps.device, memory_format=order)
    _launch(_interpolate, maps, result, result, maps, align_corners, order)
    return result


def gather(gradient: Tensor, size: Sequence[int], align_corners: bool, order: torch.memory_format) -> Tensor:
    """The gradient with respect to maps of `size`, in the memory format `order`, from that of the upsampled ones."""
    gradient = gradient.contiguous(memory_format=order)
    shape = (*gradient.shape[:2], *size)
    result = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=order)
    supports = [support(*axis, align_corners) for axis in zip(size, gradient.shape[2:])]
    _launch(_gather, gradient, result, gradient, result, align_corners, order, *supports)
    return result


def _launch(
    kernel,
    read: Tensor,
    written: Tensor,
    full: Tensor,
    low: Tensor,
    align_corners: bool,
    order: torch.memory_format,
    *supports: int,
) -> None:
    """Run `kernel` from `read` to `written`, of which one is `full` and the other `low`."""
    batch, channels, *size = low.shape
    full_size = full.shape[2:]
    check_positions("upsample", size, full_size)
    if not batch:
        return
    config = choose("upsample", BAKED[order], low.device)
    pixels, lanes = config.blocks["PIXELS"], config.blocks["CHANNELS"]
    grid = ceil_div(written.shape[2] * written.shape[3], pixels), ceil_div(channels, lanes), batch
    last = order == torch.channels_last
    steps = [(channels, 1) if last else (1, tensor.shape[2] * tensor.shape[3]) for tensor in (low, full)]
    launch(
        kernel, grid, read, written, channels, *size, *full_size, *steps[0], *steps[1], *supports,
        warps=config.warps, stages=config.stages, ALIGN_CORNERS=align_corners, **config.blocks,
    )  # fmt: skip
