"""Squared error between probabilities of upsampled logits on a GPU, never upsampled in memory.

A thread owns the pixels between neighbouring nodes and goes through the classes of both logits, whose values z it
interpolates anew each time:

1. It keeps the largest z of either so far and the sum of exp(z - largest), as the cross-entropy does.
2. It sums d^2 and p d, with d = p - q the difference of the probabilities.
3. It adds 2 w p (d - sum p d) to the few nodes around its pixels, in registers first and then to memory, atomically.

Sums of errors are added in a fixed order, those of the gradient are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl
from .bilinear import add_to_nodes, block_grid, block_side, check_positions, pixels_of, taps, upsampled
from .cutmix import toggled
from .exponentials import LOG2_E, grow

BAKED = {0: Configuration({"BLOCKS": 64}), 80: Configuration({"BLOCKS": 128})}


@jit
def _wanted(
    plane, other, offset, mask, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
    x_weight0, x_weight1, x_weight2, from_teacher, from_other,
):  # fmt: skip
    """The teacher's value of one class at all pixels of the blocks, mixed."""
    value = upsampled(
        plane + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
        x_weight0, x_weight1, x_weight2, from_teacher,
    )  # fmt: skip
    if other is not None:
        inside = upsampled(
            other + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            x_weight0, x_weight1, x_weight2, from_other,
        )  # fmt: skip
        value = tl.where(mask, inside, value)
    return value


@jit
def _mse(
    logits, teacher, other, boxes, weight, totals, gradient, classes, low_height, low_width, full_height, full_width,
    block_columns, block_count, programs_per_image, box_count,
    SIDE: tl.constexpr, BLOCKS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, LOG2_E: tl.constexpr,
):  # fmt: skip
    """Errors of BLOCKS blocks of pixels of one image. Optional, else None: other and boxes, weight, gradient."""
    program = tl.program_id(0)
    image = (program // programs_per_image).to(tl.int64)
    block = (program % programs_per_image) * BLOCKS + tl.arange(0, BLOCKS)
    used = block < block_count
    y, node_y0, node_y1, node_y2, y_weight0, y_weight1, y_weight2 = taps(
        block // block_columns, low_height, full_height, SIDE, ALIGN_CORNERS
    )
    x, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2 = taps(
        block % block_columns, low_width, full_width, SIDE, ALIGN_CORNERS
    )
    row0, row1, row2 = node_y0 * low_width, node_y1 * low_width, node_y2 * low_width
    # Exponentials of 2 stand for those of e.
    scaled0, scaled1, scaled2 = x_weight0 * LOG2_E, x_weight1 * LOG2_E, x_weight2 * LOG2_E

    inside = (y < full_height)[:, None, :] & ((x < full_width) & used[None, :])[None, :, :]
    mask, from_teacher, from_other = inside, used, used
    if other is not None:
        mask = toggled(boxes, image, box_count, y[:, None, :], x[None, :, :])
        pixels_of_other = tl.sum(tl.sum(mask.to(tl.int32), axis=0), axis=0)
        from_other = used & (pixels_of_other > 0)
        from_teacher = used & (pixels_of_other < SIDE * SIDE)

    plane_size = low_height * low_width
    first = image * classes * plane_size
    largest, wanted_largest = (
        tl.full((SIDE, SIDE, BLOCKS), float("-inf"), tl.float32),
        tl.full((SIDE, SIDE, BLOCKS), float("-inf"), tl.float32),
    )
    total, wanted_total = (
        tl.zeros((SIDE, SIDE, BLOCKS), tl.float32),
        tl.zeros((SIDE, SIDE, BLOCKS), tl.float32),
    )
    offset = first
    for _ in range(classes):
        value = upsampled(
            logits + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            scaled0, scaled1, scaled2, used,
        )  # fmt: skip
        largest, total = grow(value, largest, total)
        value = _wanted(
            teacher, other, offset, mask, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            scaled0, scaled1, scaled2, from_teacher, from_other,
        )  # fmt: skip
        wanted_largest, wanted_total = grow(value, wanted_largest, wanted_total)
        offset += plane_size
    normalizer = largest + tl.log2(total)
    wanted_normalizer = wanted_largest + tl.log2(wanted_total)

    error, along = tl.zeros((SIDE, SIDE, BLOCKS), tl.float32), tl.zeros((SIDE, SIDE, BLOCKS), tl.float32)
    offset = first
    for _ in range(classes):
        value = upsampled(
            logits + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            scaled0, scaled1, scaled2, used,
        )  # fmt: skip
        probability = tl.exp2(value - normalizer)
        value = _wanted(
            teacher, other, offset, mask, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            scaled0, scaled1, scaled2, from_teacher, from_other,
        )  # fmt: skip
        difference = probability - tl.exp2(value - wanted_normalizer)
        error += difference * difference
        along += probability * difference
        offset += plane_size
    scale = tl.where(inside, 1.0, 0.0)
    if weight is not None:
        plane = weight + image * full_height * full_width
        scale = pixels_of(plane, block, used, block_columns, full_height, full_width, SIDE, tl.float32)
    tl.store(totals + program, tl.sum(error * scale))

    if gradient is not None:
        offset = first
        for _ in range(classes):
            value = upsampled(
                logits + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
                scaled0, scaled1, scaled2, used,
            )  # fmt: skip
            probability = tl.exp2(value - normalizer)
            value = _wanted(
                teacher, other, offset, mask, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1,
                y_weight2, scaled0, scaled1, scaled2, from_teacher, from_other,
            )  # fmt: skip
            difference = probability - tl.exp2(value - wanted_normalizer)
            add_to_nodes(
                gradient + offset, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
                x_weight0, x_weight1, x_weight2, used, 2 * scale * probability * (difference - along),
            )  # fmt: skip
            offset += plane_size


def mse(
    logits: Tensor,
    teacher: Tensor,
    other: Tensor | None,
    boxes: Tensor | None,
    weight: Tensor | None,
    size: Sequence[int],
    align_corners: bool,
    gradient: Tensor | None = None,
) -> Tensor:
    """As its namesake for the CPU."""
    batch, classes, *low = logits.shape
    check_positions("logits", low, size)
    logits, teacher = logits.contiguous(), teacher.contiguous()
    if other is not None and boxes is not None:
        other, boxes = other.contiguous(), boxes.contiguous()
    if weight is not None:
        weight = weight.contiguous()
        weight = weight.view(torch.uint8) if weight.dtype == torch.bool else weight
    config = choose("upsample_mse", BAKED, logits.device)
    side = block_side(low, size, align_corners)
    block_rows, block_columns = block_grid(size, side)
    programs_per_image = ceil_div(block_rows * block_columns, config.blocks["BLOCKS"])
    totals = torch.empty(batch * programs_per_image, dtype=torch.float32, device=logits.device)
    launch(
        _mse, (batch * programs_per_image,), logits, teacher, other, boxes, weight, totals, gradient, classes, *low,
        *size, block_columns, block_rows * block_columns, programs_per_image, 0 if boxes is None else boxes.shape[1],
        warps=config.warps, stages=config.stages,
        SIDE=side, ALIGN_CORNERS=align_corners, LOG2_E=LOG2_E, **config.blocks,
    )  # fmt: skip
    return totals.sum()
