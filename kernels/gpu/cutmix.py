"""CutMix on a GPU.

A sample in either memory format is rows of contiguous elements, W of one channel or W C of all, so that one kernel
serves both and finds y once per row and x once per column. Elements are handled in groups of 16 bytes, one load each;
only the groups that an edge of a box cuts load from both images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl

BAKED = {
    0: Configuration({"ROWS": 16, "GROUPS": 4}),
    80: Configuration({"ROWS": 8, "GROUPS": 64}),
}


@jit
def toggled(boxes, sample, box_count, y, x):
    """M of one sample at pixels (y, x), in their shape when broadcast (int1)."""
    inside = (y < 0) & (x < 0)
    for box in range(box_count):
        corner = boxes + (sample * box_count + box) * 4
        y0, x0 = tl.load(corner), tl.load(corner + 1)
        y1, x1 = tl.load(corner + 2), tl.load(corner + 3)
        inside = inside ^ (((y >= y0) & (y < y1)) & ((x >= x0) & (x < x1)))
    return inside


@jit
def _place(
    boxes, box_count, rows, length, height,
    PIXEL: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The offsets of a program's (ROWS, GROUPS, LANES) elements, all of one sample, whether they exist, and M."""
    strips = tl.cdiv(rows, ROWS)
    sample = tl.program_id(0) // strips
    row = tl.program_id(0) % strips * ROWS + tl.arange(0, ROWS)[:, None, None]
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)[None, :, None]
    element = group * LANES + tl.arange(0, LANES)[None, None, :]
    mask = toggled(boxes, sample, box_count, row % height, element // PIXEL)
    offset = (sample.to(tl.int64) * rows + row) * length + element
    return offset, (row < rows) & (element < length), mask


@jit
def _mix(
    images_a, images_b, boxes, mixed, box_count, rows, length, height,
    PIXEL: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    offset, exists, mask = _place(boxes, box_count, rows, length, height, PIXEL, ROWS, GROUPS, LANES)
    # Whole groups are loaded or not: a mask that changes within a group would make its load fall apart.
    from_b = tl.sum(mask.to(tl.int32), axis=2, keep_dims=True)
    a = tl.load(images_a + offset, mask=exists & (from_b < LANES))
    b = tl.load(images_b + offset, mask=exists & (from_b > 0))
    tl.store(mixed + offset, tl.where(mask, b, a), mask=exists)


@jit
def _split(
    images, boxes, outside, inside, box_count, rows, length, height,
    PIXEL: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    offset, exists, mask = _place(boxes, box_count, rows, length, height, PIXEL, ROWS, GROUPS, LANES)
    value = tl.load(images + offset, mask=exists)
    tl.store(outside + offset, tl.where(mask, 0, value), mask=exists)
    tl.store(inside + offset, tl.where(mask, value, 0), mask=exists)


def _launch(kernel, tensors: tuple[Tensor, ...], images: Tensor, boxes: Tensor) -> None:
    """Run `kernel` on `tensors`, all in the dense memory format of `images`, which is among them."""
    batch, channels, height, width = images.shape
    # Where images are contiguous in both formats, the two orders are one.
    pixel = 1 if images.is_contiguous() else channels
    rows, length = height * channels // pixel, width * pixel
    lanes = 16 // images.element_size()
    config = choose("cutmix", BAKED, images.device)
    grid = batch * ceil_div(rows, config.blocks["ROWS"]), ceil_div(length, config.blocks["GROUPS"] * lanes)
    launch(
        kernel, grid, *tensors, boxes.shape[1], rows, length, height,
        warps=config.warps, stages=config.stages, PIXEL=pixel, LANES=lanes, **config.blocks,
    )  # fmt: skip


def mix(images_a: Tensor, images_b: Tensor, boxes: Tensor, memory_format: torch.memory_format) -> Tensor:
    """`images_b` inside the toggled boxes, `images_a` elsewhere, in `memory_format`."""
    images_a = images_a.contiguous(memory_format=memory_format)
    images_b = images_b.contiguous(memory_format=memory_format)
    boxes, mixed = boxes.contiguous(), torch.empty_like(images_a, memory_format=memory_format)
    _launch(_mix, (images_a, images_b, boxes, mixed), mixed, boxes)
    return mixed


def split(images: Tensor, boxes: Tensor, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
    """`images` outside the toggled boxes and inside them, zero elsewhere, in `memory_format`."""
    images, boxes = images.contiguous(memory_format=memory_format), boxes.contiguous()
    outside = torch.empty_like(images, memory_format=memory_format)
    inside = torch.empty_like(images, memory_format=memory_format)
    _launch(_split, (images, boxes, outside, inside), images, boxes)
    return outside, inside
