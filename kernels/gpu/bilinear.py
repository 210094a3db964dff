"""Bilinear upsampling inside Triton kernels, one block of output pixels at a time.

The output is cut into square blocks of SIDE x SIDE pixels, SIDE so small that the pixels of a block lie between at most
three neighbouring nodes of the low-resolution grid along each axis. A program holds BLOCKS blocks, the blocks along the
last axis of its tensors, so that one thread owns all pixels of a block: nine loads of low-resolution values serve
SIDE^2 pixels, three interpolations along x serve a column, and the transpose (node sums of a gradient) is a sum over
registers. With SIDE = 4 that is 0.6 loads and 5 multiply-adds per value, against 4 loads and 4 multiply-adds.

Positions are computed in integers, so that weights are exact to float32 rounding at any size.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._triton import ceil_div, jit, tl

LARGEST_SIDE = 4
SIZES = (
    "low_height", "low_width", "full_height", "full_width", "block_columns", "block_count", "programs_per_image",
)  # fmt: skip
"""Arguments of kernels that only multiply and compare, so that one variant serves all sizes of images."""


def block_side(low: Sequence[int], full: Sequence[int], align_corners: bool) -> int:
    """Pixels along the side of a block: the largest power of two whose pixels lie between three nodes on each axis."""
    side = LARGEST_SIDE
    for nodes, pixels in zip(low, full):
        if align_corners:
            numerator, denominator = nodes - 1, max(pixels - 1, 1)
        else:
            numerator, denominator = nodes, pixels
        while side > 1 and (side - 1) * numerator > denominator:
            side //= 2
    return side


def block_grid(full: Sequence[int], side: int) -> tuple[int, int]:
    """How many blocks cover the output along y and x."""
    return ceil_div(full[0], side), ceil_div(full[1], side)


def support(nodes: int, pixels: int, align_corners: bool) -> int:
    """At most how many pixels along one axis, in a row from `first_pixel` on, take weight from one node."""
    if align_corners:
        nodes, pixels_between = nodes - 1, pixels - 1
    else:
        pixels_between = pixels
    return min(pixels, ceil_div(2 * pixels_between, nodes) + 1) if nodes else pixels


def check_positions(name: str, low: Sequence[int], full: Sequence[int]) -> None:
    """Raise ValueError unless positions and places in one plane can be computed in 32 bits."""
    positions = [(2 * pixels + 1) * nodes for nodes, pixels in zip(low, full)]
    if max(*positions, low[0] * low[1], full[0] * full[1]) >= 2**31:
        raise ValueError(f"{name}: upsampling from {tuple(low)} to {tuple(full)} is too large for 32-bit positions")


@jit
def source(pixel, nodes, pixels, ALIGN_CORNERS: tl.constexpr):
    """Node at or before each output position along one axis (int32), and the fraction of the way to the next."""
    if ALIGN_CORNERS:
        denominator = tl.maximum(pixels - 1, 1)
        numerator = pixel * (nodes - 1)
    else:
        denominator = 2 * pixels
        numerator = tl.maximum((2 * pixel + 1) * nodes - pixels, 0)
        numerator = tl.minimum(numerator, (nodes - 1) * denominator)
    node = numerator // denominator
    return node, (numerator - node * denominator).to(tl.float32) / denominator


@jit
def taps(block, nodes, pixels, SIDE: tl.constexpr, ALIGN_CORNERS: tl.constexpr):
    """For blocks (BLOCKS,) along one axis: their pixels (SIDE, BLOCKS), their three nodes, clamped to the grid,
    (BLOCKS,) each, and the weight of each node in each pixel, (SIDE, BLOCKS) each."""
    pixel = block[None, :] * SIDE + tl.arange(0, SIDE)[:, None]
    node, fraction = source(tl.minimum(pixel, pixels - 1), nodes, pixels, ALIGN_CORNERS)
    base, _ = source(tl.minimum(block * SIDE, pixels - 1), nodes, pixels, ALIGN_CORNERS)
    first = node == base[None, :]
    weight0 = tl.where(first, 1 - fraction, 0.0)
    weight1 = tl.where(first, fraction, 1 - fraction)
    weight2 = tl.where(first, 0.0, fraction)
    node1 = tl.minimum(base + 1, nodes - 1)
    node2 = tl.minimum(base + 2, nodes - 1)
    return pixel, base, node1, node2, weight0, weight1, weight2


@jit
def pixels_of(map, block, used, block_columns, height, width, SIDE: tl.constexpr, DTYPE: tl.constexpr):
    """The values of a (height, width) map in the pixels of the blocks: (SIDE of y, SIDE of x, BLOCKS), 0 beyond it.

    One position of all blocks is loaded at a time. One load of everything would have no order of its own in memory, and
    compilers (Triton 3.6) then deal a block out to many threads, which pay for it in each loop that follows.
    """
    index_y, index_x = tl.arange(0, SIDE)[:, None, None], tl.arange(0, SIDE)[None, :, None]
    values = tl.zeros((SIDE, SIDE, block.shape[0]), DTYPE)
    for i in tl.static_range(SIDE):
        for j in tl.static_range(SIDE):
            y, x = (block // block_columns) * SIDE + i, (block % block_columns) * SIDE + j
            one = tl.load(map + y * width + x, mask=used & (y < height) & (x < width), other=0).to(DTYPE)
            values = tl.where((index_y == i) & (index_x == j), one[None, None, :], values)
    return values


@jit
def across(plane, row, node_x0, node_x1, node_x2, weight0, weight1, weight2, used):
    """One row of nodes interpolated along x: (SIDE, BLOCKS) float32. `row` is the offset of its first node."""
    value0 = tl.load(plane + row + node_x0, mask=used, other=0.0).to(tl.float32)
    value1 = tl.load(plane + row + node_x1, mask=used, other=0.0).to(tl.float32)
    value2 = tl.load(plane + row + node_x2, mask=used, other=0.0).to(tl.float32)
    return weight0 * value0[None, :] + weight1 * value1[None, :] + weight2 * value2[None, :]


@jit
def upsampled(
    plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
    x_weight0, x_weight1, x_weight2, used,
):  # fmt: skip
    """All pixels of the blocks: (SIDE of y, SIDE of x, BLOCKS) float32. Blocks that are not `used` (BLOCKS,) are 0."""
    above = across(plane, row0, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, used)
    middle = across(plane, row1, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, used)
    below = across(plane, row2, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, used)
    value = y_weight0[:, None, :] * above[None, :, :] + y_weight1[:, None, :] * middle[None, :, :]
    return value + y_weight2[:, None, :] * below[None, :, :]


@jit
def _add_row(
    plane, row, node_x0, node_x1, node_x2, weight0, weight1, weight2, value, here, touched0, touched1, touched2
):  # fmt: skip
    tl.atomic_add(plane + row + node_x0, tl.sum(weight0 * value, 0), mask=here & touched0, sem="relaxed")
    tl.atomic_add(plane + row + node_x1, tl.sum(weight1 * value, 0), mask=here & touched1, sem="relaxed")
    tl.atomic_add(plane + row + node_x2, tl.sum(weight2 * value, 0), mask=here & touched2, sem="relaxed")


@jit
def add_to_nodes(
    plane, row0, row1, row2, node_x0, node_x1, node_x2, y_weight0, y_weight1, y_weight2,
    x_weight0, x_weight1, x_weight2, used, value,
):  # fmt: skip
    """Transpose of `upsampled`: add `value` (SIDE of y, SIDE of x, BLOCKS) to the float32 nodes of `plane`, atomically.

    A node without weight in any pixel of the block, as those are that stand for nodes beyond the grid, is left alone.
    """
    touched0, touched1, touched2 = tl.max(x_weight0, 0) > 0, tl.max(x_weight1, 0) > 0, tl.max(x_weight2, 0) > 0
    above = tl.sum(y_weight0[:, None, :] * value, 0)
    middle = tl.sum(y_weight1[:, None, :] * value, 0)
    below = tl.sum(y_weight2[:, None, :] * value, 0)
    _add_row(
        plane, row0, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, above,
        used & (tl.max(y_weight0, 0) > 0), touched0, touched1, touched2,
    )  # fmt: skip
    _add_row(
        plane, row1, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, middle,
        used & (tl.max(y_weight1, 0) > 0), touched0, touched1, touched2,
    )  # fmt: skip
    _add_row(
        plane, row2, node_x0, node_x1, node_x2, x_weight0, x_weight1, x_weight2, below,
        used & (tl.max(y_weight2, 0) > 0), touched0, touched1, touched2,
    )  # fmt: skip


@jit
def first_pixel(node, nodes, pixels, ALIGN_CORNERS: tl.constexpr):
    """A position along one axis at or before the first pixel that takes weight from `node`, within a pixel of it."""
    if ALIGN_CORNERS:
        return tl.maximum((node - 1) * (pixels - 1) // tl.maximum(nodes - 1, 1), 0)
    return tl.maximum(((2 * node - 1) * pixels - nodes) // (2 * nodes), 0)


@jit
def taps_around(pixel, node, nodes, pixels, ALIGN_CORNERS: tl.constexpr):
    """Weights in `pixel` of the node before `node`, of `node` and of the next: all 0 where `node` has none."""
    at, fraction = source(tl.minimum(pixel, pixels - 1), nodes, pixels, ALIGN_CORNERS)
    before = (at == node - 1) & (pixel < pixels)
    after = (at == node) & (pixel < pixels)
    return (
        tl.where(before, 1 - fraction, 0.0),
        tl.where(before, fraction, tl.where(after, 1 - fraction, 0.0)),
        tl.where(after, fraction, 0.0),
    )
