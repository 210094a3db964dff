"""Pseudo-labels on a GPU: one pass over the classes, the pixels between neighbouring nodes on one thread.

It keeps the largest value m so far and s = sum exp(z - m), at one exponential a value: with d = z - m, s becomes
s exp(-d) + 1 where d > 0 (and m becomes z), else s + exp(d). Without confidence m is all that it keeps.
"""

from __future__ import annotations

from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, tl
from .bilinear import SIZES, block_grid, block_side, check_positions, taps, upsampled
from .cutmix import toggled
from .exponentials import LOG2_E

BAKED = {
    0: Configuration({"BLOCKS": 256}),
    80: Configuration({"BLOCKS": 128}),
}


@jit(any_size=SIZES)
def _classify(
    logits_a, logits_b, boxes, label, confidence, classes, low_height, low_width, full_height, full_width,
    block_columns, block_count, box_count,
    MIXED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, LOG2_E: tl.constexpr, SIDE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """`confidence` is None if not wanted."""
    image = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    y, node_y0, node_y1, node_y2, y_weight0, y_weight1, y_weight2 = taps(
        block // block_columns, low_height, full_height, SIDE, ALIGN_CORNERS
    )
    x, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2 = taps(
        block % block_columns, low_width, full_width, SIDE, ALIGN_CORNERS
    )
    row0, row1, row2 = node_y0 * low_width, node_y1 * low_width, node_y2 * low_width
    y, x = y[:, None, :], x[None, :, :]

    from_a = block < block_count
    if MIXED:
        mask = toggled(boxes, image, box_count, y, x)
        pixels_of_b = tl.sum(tl.sum(mask.to(tl.int32), axis=0), axis=0)
        from_b = from_a & (pixels_of_b > 0)
        from_a = from_a & (pixels_of_b < SIDE * SIDE)

    peak = tl.full((SIDE, SIDE, BLOCKS), float("-inf"), tl.float32)
    total = tl.zeros((SIDE, SIDE, BLOCKS), tl.float32)
    best = tl.zeros((SIDE, SIDE, BLOCKS), tl.int32)
    for index in range(classes):
        plane = (image * classes + index) * low_height * low_width
        value = upsampled(
            logits_a + plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
            x_weight0, x_weight1, x_weight2, from_a,
        )  # fmt: skip
        if MIXED:
            value_b = upsampled(
                logits_b + plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
                x_weight0, x_weight1, x_weight2, from_b,
            )  # fmt: skip
            value = tl.where(mask, value_b, value)
        above = value > peak
        if confidence is not None:
            # The difference is scaled, not the logits: rounding large ones after scaling would swamp it.
            decay = tl.exp2(tl.abs(value - peak) * -LOG2_E)
            total = tl.where(above, total * decay + 1, total + decay)
        best = tl.where(above, index, best)
        peak = tl.where(above, value, peak)

    inside = (y < full_height) & (x < full_width)
    # The minimum hides that pixels are neighbours in memory: a block stays on one thread.
    place = (image * full_height + tl.minimum(y, full_height - 1)) * full_width + tl.minimum(x, full_width - 1)
    tl.store(label + place, best.to(tl.uint8), mask=inside)
    if confidence is not None:
        tl.store(confidence + place, 1 / total, mask=inside)


def pseudo_label(logits: Tensor, align_corners: bool, label: Tensor, confidence: Tensor | None) -> None:
    """As its namesake for the CPU."""
    _launch(logits, None, None, align_corners, label, confidence)


def mixed_pseudo_label(
    logits_a: Tensor,
    logits_b: Tensor,
    boxes: Tensor,
    align_corners: bool,
    label: Tensor,
    confidence: Tensor | None,
) -> None:
    """As its namesake for the CPU."""
    _launch(logits_a, logits_b, boxes, align_corners, label, confidence)


def _launch(
    logits_a: Tensor,
    logits_b: Tensor | None,
    boxes: Tensor | None,
    align_corners: bool,
    label: Tensor,
    confidence: Tensor | None,
) -> None:
    """Without `logits_b` and `boxes` the labels of `logits_a` alone."""
    (batch, classes, *low), size = logits_a.shape, label.shape[1:]
    check_positions("pseudo_label", low, size)
    logits_a = logits_a.contiguous()
    if logits_b is not None and boxes is not None:
        logits_b, boxes = logits_b.contiguous(), boxes.contiguous()
    side = block_side(low, size, align_corners)
    block_rows, block_columns = block_grid(size, side)
    config = choose("pseudo_label", BAKED, logits_a.device)
    launch(
        _classify, (ceil_div(block_rows * block_columns, config.blocks["BLOCKS"]), batch),
        logits_a, logits_b, boxes, label, confidence, classes, *low, *size, block_columns, block_rows * block_columns,
        0 if boxes is None else boxes.shape[1],
        warps=config.warps, stages=config.stages, MIXED=boxes is not None, ALIGN_CORNERS=align_corners, LOG2_E=LOG2_E,
        SIDE=side, **config.blocks,
    )  # fmt: skip
