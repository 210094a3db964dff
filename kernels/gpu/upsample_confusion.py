"""The confusion matrix of upsampled logits on a GPU: each program adds a histogram of its pixels to the counts."""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, next_power_of_two, tl
from .bilinear import SIZES, block_grid, block_side, check_positions, taps, upsampled

MOST_BINS = 2048
"""With more, a program has fewer pixels than bins, and a histogram of its own no longer saves additions."""

BAKED = {
    0: Configuration({"BLOCKS": 256}),
    80: Configuration({"BLOCKS": 128}),
}


@jit(any_size=SIZES)
def _count(
    logits, targets, counts, classes, low_height, low_width, full_height, full_width, block_columns, block_count,
    ignore_index, BINS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, SIDE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """BINS = 0: no histogram, one atomic addition a pixel."""
    image = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    y, node_y0, node_y1, node_y2, y_weight0, y_weight1, y_weight2 = taps(
        block // block_columns, low_height, full_height, SIDE, ALIGN_CORNERS
    )
    x, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2 = taps(
        block % block_columns, low_width, full_width, SIDE, ALIGN_CORNERS
    )
    row0, row1, row2 = node_y0 * low_width, node_y1 * low_width, node_y2 * low_width
    used = block < block_count

    peak = tl.full((SIDE, SIDE, BLOCKS), float("-inf"), tl.float32)
    best = tl.zeros((SIDE, SIDE, BLOCKS), tl.int32)
    for index in range(classes):
        plane = (image * classes + index) * low_height * low_width
        value = upsampled(
            logits + plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            x_weight0, x_weight1, x_weight2, used,
        )  # fmt: skip
        best = tl.where(value > peak, index, best)
        peak = tl.maximum(peak, value)

    y, x = y[:, None, :], x[None, :, :]
    inside = (y < full_height) & (x < full_width)
    # The minimum hides that pixels are neighbours in memory: a block stays on one thread.
    place = (image * full_height + tl.minimum(y, full_height - 1)) * full_width + tl.minimum(x, full_width - 1)
    target = tl.load(targets + place, mask=inside, other=0).to(tl.int64)
    counted = inside & (target != ignore_index) & (target >= 0) & (target < classes)
    pair = target.to(tl.int32) * classes + best
    if BINS == 0:
        tl.atomic_add(counts + pair, 1, mask=counted, sem="relaxed")
    else:
        # One bin more than there are pairs takes the pixels that are not counted.
        pair = tl.where(counted, pair, classes * classes)
        histogram = tl.histogram(tl.reshape(pair, (SIDE * SIDE * BLOCKS,)), BINS)
        bins = tl.arange(0, BINS)
        found = (bins < classes * classes) & (histogram > 0)
        tl.atomic_add(counts + bins, histogram.to(tl.int64), mask=found, sem="relaxed")


def upsample_confusion(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    """Arguments as in `semiseg.kernels.upsample_confusion`."""
    (batch, classes, *low), size = logits.shape, target.shape[1:]
    check_positions("upsample_confusion", low, size)
    logits, target = logits.contiguous(), target.contiguous()
    counts = torch.zeros((classes, classes), dtype=torch.int64, device=logits.device)
    bins = next_power_of_two(classes * classes + 1)
    side = block_side(low, size, align_corners)
    block_rows, block_columns = block_grid(size, side)
    config = choose("upsample_confusion", BAKED, logits.device)
    launch(
        _count, (ceil_div(block_rows * block_columns, config.blocks["BLOCKS"]), batch),
        logits, target, counts, classes, *low, *size, block_columns, block_rows * block_columns, ignore_index,
        warps=config.warps, stages=config.stages, BINS=bins if bins <= MOST_BINS else 0, ALIGN_CORNERS=align_corners,
        SIDE=side, **config.blocks,
    )  # fmt: skip
    return counts
