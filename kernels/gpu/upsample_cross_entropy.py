"""Cross-entropy of upsampled logits on a GPU, never upsampled in memory.

A thread owns the pixels between neighbouring nodes and goes through the classes twice:

1. It interpolates z and keeps m, the largest so far, and s = sum exp(z - m), at one exponential a value: with
   d = z - m, s becomes s exp(-d) + 1 where d > 0 (and m becomes z), else s + exp(d).
2. It interpolates z again, p = exp(z - m - log s), and adds the gradient to the few nodes around its pixels, in
   registers first and then to memory, atomically.

That is 2 B C H W exponentials (1 without a gradient) and about 40 other instructions a value, 16 of which interpolate
twice and back. With logits of e and a target of t bytes, (2 e + 12) B C h w + t B H W bytes: a gradient in float32 is
cleared, added to, and scaled in the backward pass; the second reading of the logits hits a cache. Sums of losses are
added in a fixed order, those of the gradient are not.

Deterministic, pass 2 is a kernel of its own, one thread for each node and class. It sums over the pixels around its
node in a fixed order, so that every probability is computed four times: 5 B C H W exponentials, and 8 B H W bytes to
write and read m + log s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, next_power_of_two, tl
from .bilinear import (
    SIZES,
    across,
    add_to_nodes,
    block_grid,
    block_side,
    check_positions,
    first_pixel,
    pixels_of,
    support,
    taps,
    taps_around,
    upsampled,
)
from .exponentials import LOG2_E, grow

BAKED = {0: Configuration({"BLOCKS": 64}), 80: Configuration({"BLOCKS": 128})}
BAKED_GATHER = {0: Configuration({"NODES": 64}), 80: Configuration({"NODES": 128})}
LONGEST_RUN = 8
"""Pixels of a row that a thread of the gathering kernel holds at a time."""


@jit(any_size=SIZES)
def _loss(
    logits, targets, weight, totals, counts, losses, lse, gradient, classes, low_height, low_width,
    full_height, full_width, block_columns, block_count, programs_per_image, ignore_index,
    SIDE: tl.constexpr, BLOCKS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, LOG2_E: tl.constexpr,
):  # fmt: skip
    """Losses of BLOCKS blocks of pixels of one image, in units of ln 2 until the end: weights along x carry log2 e.

    Optional, None if not wanted: weight; totals and counts (programs,), losses, lse (B, H, W), gradient.
    """
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

    inside = (y < full_height)[:, None, :] & ((x < full_width) & used[None, :])[None, :, :]
    first_place = image * full_height * full_width
    target = pixels_of(targets + first_place, block, used, block_columns, full_height, full_width, SIDE, tl.int64)
    valid = inside & (target != ignore_index)
    target = tl.where(valid & (target >= 0) & (target < classes), target, -1).to(tl.int32)

    plane_size = low_height * low_width
    plane = logits + image * classes * plane_size
    largest = tl.full((SIDE, SIDE, BLOCKS), float("-inf"), tl.float32)
    total = tl.zeros((SIDE, SIDE, BLOCKS), tl.float32)
    # A pixel whose class never comes keeps NaN.
    chosen = tl.full((SIDE, SIDE, BLOCKS), float("nan"), tl.float32)
    for label in range(classes):
        value = upsampled(
            plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            x_weight0 * LOG2_E, x_weight1 * LOG2_E, x_weight2 * LOG2_E, used,
        )  # fmt: skip
        largest, total = grow(value, largest, total)
        chosen = tl.where(target == label, value, chosen)
        plane += plane_size
    normalizer = largest + tl.log2(total)
    loss = (normalizer - chosen) / LOG2_E
    if weight is not None:
        scale = pixels_of(weight + first_place, block, used, block_columns, full_height, full_width, SIDE, tl.float32)
        scale = tl.where(valid, scale, 0.0)
        loss *= scale
    loss = tl.where(valid, loss, 0.0)
    # No class has a probability in an ignored pixel, and every one has NaN where the target is none.
    normalizer = tl.where(target < 0, float("nan"), normalizer)
    normalizer = tl.where(valid, normalizer, float("inf"))
    # The minimum hides that pixels are neighbours in memory: a block stays on one thread.
    y, x = tl.minimum(y, full_height - 1), tl.minimum(x, full_width - 1)
    place = first_place + (y * full_width)[:, None, :] + x[None, :, :]
    if totals is not None:
        tl.store(totals + program, tl.sum(loss))
        tl.store(counts + program, tl.sum(valid.to(tl.int32)))
    if losses is not None:
        tl.store(losses + place, loss, mask=inside)
    if lse is not None:
        tl.store(lse + place, normalizer, mask=inside)

    if gradient is not None:
        plane = logits + image * classes * plane_size
        gradient_plane = gradient + image * classes * plane_size
        for label in range(classes):
            value = upsampled(
                plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
                x_weight0 * LOG2_E, x_weight1 * LOG2_E, x_weight2 * LOG2_E, used,
            )  # fmt: skip
            difference = tl.exp2(value - normalizer)
            difference = tl.where(target == label, difference - 1, difference)
            if weight is not None:
                difference *= scale
            # Divided here, so that the scaled weights serve both ways: registers are scarcer than multiplications.
            difference *= 1 / LOG2_E
            add_to_nodes(
                gradient_plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
                x_weight0 * LOG2_E, x_weight1 * LOG2_E, x_weight2 * LOG2_E, used, difference,
            )  # fmt: skip
            plane += plane_size
            gradient_plane += plane_size


@jit
def _gather(
    logits, targets, weight, lse, gradient, classes, low_height, low_width, full_height, full_width,
    y_support, x_support, programs_per_plane, ignore_index,
    RUN: tl.constexpr, NODES: tl.constexpr, ALIGN_CORNERS: tl.constexpr, LOG2_E: tl.constexpr,
):  # fmt: skip
    """Gradient of NODES nodes of one class of one image, summed in a fixed order over the pixels around each node.

    Interpolates like `_loss` to the last bit, so that no probability exceeds 1. lse in units of ln 2, infinite
    where ignored, NaN where the target is no class.
    """
    program = tl.program_id(0)
    plane = (program // programs_per_plane).to(tl.int64)
    image, label = plane // classes, (plane % classes).to(tl.int32)
    node = (program % programs_per_plane) * NODES + tl.arange(0, NODES)
    plane_size = low_height * low_width
    used = node < plane_size
    node_y, node_x = node // low_width, node % low_width
    node_y0, node_y2 = tl.maximum(node_y - 1, 0), tl.minimum(node_y + 1, low_height - 1)
    row0, row1, row2 = node_y0 * low_width, node_y * low_width, node_y2 * low_width
    node_x0, node_x2 = tl.maximum(node_x - 1, 0), tl.minimum(node_x + 1, low_width - 1)
    y_first = first_pixel(node_y, low_height, full_height, ALIGN_CORNERS)
    x_first = first_pixel(node_x, low_width, full_width, ALIGN_CORNERS)

    first_place = image * full_height * full_width
    sums = tl.zeros((NODES,), tl.float32)
    for begin in range(0, x_support, RUN):
        x = (x_first + begin)[None, :] + tl.arange(0, RUN)[:, None]
        x_weight0, x_weight1, x_weight2 = taps_around(x, node_x[None, :], low_width, full_width, ALIGN_CORNERS)
        inside_x = x < full_width
        # The minimum keeps a run on one thread, as it keeps a block in `_loss`.
        x = tl.minimum(x, full_width - 1)
        scaled0, scaled1, scaled2 = x_weight0 * LOG2_E, x_weight1 * LOG2_E, x_weight2 * LOG2_E
        start = logits + plane * plane_size
        above = across(start, row0, node_x0, node_x, node_x2, scaled0, scaled1, scaled2, used)
        middle = across(start, row1, node_x0, node_x, node_x2, scaled0, scaled1, scaled2, used)
        below = across(start, row2, node_x0, node_x, node_x2, scaled0, scaled1, scaled2, used)
        for step in range(y_support):
            y = y_first + step
            y_weight0, y_weight1, y_weight2 = taps_around(y, node_y, low_height, full_height, ALIGN_CORNERS)
            value = y_weight0[None, :] * above + y_weight1[None, :] * middle + y_weight2[None, :] * below
            inside = inside_x & (used & (y < full_height))[None, :]
            place = (tl.minimum(y, full_height - 1) * full_width)[None, :] + x
            target = tl.load(targets + first_place + place, mask=inside, other=0).to(tl.int64)
            normalizer = tl.load(lse + first_place + place, mask=inside, other=float("inf"))
            valid = inside & (target != ignore_index)
            # A pixel that takes nothing from the node has no value here, and must not overflow.
            difference = tl.exp2(tl.minimum(value - normalizer, 0.0, propagate_nan=tl.PropagateNan.ALL))
            difference = tl.where(valid & (target == label), difference - 1, difference)
            if weight is not None:
                scale = tl.load(weight + first_place + place, mask=valid, other=0.0)
                difference *= scale.to(tl.float32)
            sums += y_weight1 * tl.sum(x_weight1 * difference, 0)
    tl.store(gradient + plane * plane_size + node, sums, mask=used)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    align_corners: bool,
    ignore_index: int,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    deterministic: bool = False,
) -> tuple[Tensor, Tensor]:
    """As its namesake for the CPU, except that loss and gradient of a target that is no class are NaN."""
    batch, classes, *low = logits.shape
    full = tuple(target.shape[1:])
    check_positions("logits", low, full)
    logits, target = logits.contiguous(), target.contiguous()
    weight = None if weight is None else weight.contiguous()
    lse = torch.empty_like(target, dtype=torch.float32) if deterministic and gradient is not None else None

    config = choose("upsample_cross_entropy", BAKED, logits.device)
    side = block_side(low, full, align_corners)
    block_rows, block_columns = block_grid(full, side)
    programs_per_image = ceil_div(block_rows * block_columns, config.blocks["BLOCKS"])
    programs = batch * programs_per_image
    totals = torch.empty(programs, dtype=torch.float32, device=logits.device)
    counts = torch.empty(programs, dtype=torch.int32, device=logits.device)
    launch(
        _loss, (programs,), logits, target, weight, totals, counts, losses, lse,
        gradient if lse is None else None, classes, *low, *full, block_columns, block_rows * block_columns,
        programs_per_image, ignore_index, warps=config.warps, stages=config.stages,
        SIDE=side, ALIGN_CORNERS=align_corners, LOG2_E=LOG2_E, **config.blocks,
    )  # fmt: skip
    if lse is not None:
        config = choose("upsample_cross_entropy gather", BAKED_GATHER, logits.device)
        y_support, x_support = (support(*axis, align_corners) for axis in zip(low, full))
        programs_per_plane = ceil_div(low[0] * low[1], config.blocks["NODES"])
        launch(
            _gather, (batch * classes * programs_per_plane,), logits, target, weight, lse, gradient, classes,
            *low, *full, y_support, x_support, programs_per_plane, ignore_index,
            warps=config.warps, stages=config.stages,
            RUN=min(LONGEST_RUN, next_power_of_two(x_support)), ALIGN_CORNERS=align_corners, LOG2_E=LOG2_E,
            **config.blocks,
        )  # fmt: skip
    return totals.sum(), counts.sum()
