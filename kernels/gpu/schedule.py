"""Which anchors the directional contrastive loss scores with which negatives, decided on the device.

    compact     the direction of each row; active rows first
    summarise   lowest and highest label and class set of each tile of negatives
    schedule    for each tile of anchors: which tiles of negatives hold none of its classes (scored without a mask) and
                which hold some (scored with one); those of its only class are left out

All sizes are those of the arguments; the number of active rows stays on the device, where programs beyond it return and
`shares_of` divides the work by it.
"""

from __future__ import annotations

from .._triton import jit, tl


@jit
def _direction(conf1, conf2, valid, row, inside, threshold, HAS_VALID: tl.constexpr):
    """1 where view 1 is the anchor, 2 where view 2 is, 0 where the row is not active."""
    one = tl.load(conf1 + row, mask=inside, other=0.0)
    two = tl.load(conf2 + row, mask=inside, other=0.0)
    if HAS_VALID:
        inside = inside & (tl.load(valid + row, mask=inside, other=0) != 0)
    way = tl.where((two > threshold) & (one < two), 1, tl.where((one > threshold) & (two < one), 2, 0))
    return tl.where(inside, way, 0)


@jit
def compact_kernel(
    conf1, conf2, valid, sequence, direction, order, counts, rows, threshold,
    HAS_VALID: tl.constexpr, HAS_SEQUENCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """direction (N,); order (N,): active rows first, in sequence; counts: rows of direction 1, of 2, and of both."""
    first = tl.program_id(0) * BLOCK
    lane = tl.arange(0, BLOCK)
    ones = 0
    twos = 0
    # Each program counts the rows before its own again: a few thousand bytes, and no second launch.
    for start in range(0, first, BLOCK):
        row = start + lane
        if HAS_SEQUENCE:
            row = tl.load(sequence + row)
        way = _direction(conf1, conf2, valid, row, row >= 0, threshold, HAS_VALID)
        ones += tl.sum((way == 1).to(tl.int32), 0)
        twos += tl.sum((way == 2).to(tl.int32), 0)
    position = first + lane
    inside = position < rows
    row = position
    if HAS_SEQUENCE:
        row = tl.load(sequence + position, mask=inside, other=0)
    way = _direction(conf1, conf2, valid, row, inside, threshold, HAS_VALID)
    active = (way > 0).to(tl.int32)
    ahead = ones + twos + tl.cumsum(active, 0) - active
    tl.store(order + tl.where(way > 0, ahead, rows - 1 - (position - ahead)), row.to(tl.int32), mask=inside)
    tl.store(direction + row, way.to(tl.int8), mask=inside)
    if first + BLOCK >= rows:
        ones += tl.sum((way == 1).to(tl.int32), 0)
        twos += tl.sum((way == 2).to(tl.int32), 0)
        tl.store(counts, ones)
        tl.store(counts + 1, twos)
        tl.store(counts + 2, ones + twos)


@jit
def _class_set(label, present):
    """Classes of a tile as 32 bits. Classes that are equal modulo 32 share a bit: disjoint sets share no class."""
    bit = tl.arange(0, 32)
    holds = ((label[:, None] & 31) == bit[None, :]) & present[:, None]
    return tl.sum(tl.max(holds.to(tl.int32), 0) << bit, 0)


@jit
def summarise_kernel(negative_labels, summary, bank, bank_tiles, COLUMNS: tl.constexpr):
    """summary (3, bank tiles): lowest and highest label and class set. What lies behind the bank is an empty slot."""
    tile = tl.program_id(0)
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    # Widened first: in an unsigned dtype the -1 of what is behind the bank would be a class.
    label = tl.where(column < bank, tl.load(negative_labels + column, mask=column < bank, other=0).to(tl.int32), -1)
    tl.store(summary + tile, tl.min(label, 0))
    tl.store(summary + bank_tiles + tile, tl.max(label, 0))
    tl.store(summary + 2 * bank_tiles + tile, _class_set(label, label >= 0))


@jit
def anchors(order, direction, label1, label2, counts, tile, ROWS: tl.constexpr):
    """Row, direction and label of each anchor of a tile; behind the last one row 0 and direction 0."""
    position = tile * ROWS + tl.arange(0, ROWS)
    used = position < tl.load(counts + 2)
    row = tl.load(order + position, mask=used, other=0)
    way = tl.load(direction + row, mask=used, other=0)
    one = tl.load(label1 + row, mask=way == 1, other=0).to(tl.int32)
    two = tl.load(label2 + row, mask=way == 2, other=0).to(tl.int32)
    return row, way, one + two


@jit
def schedule_kernel(
    order, direction, label1, label2, counts, summary, schedule, lengths, bank_tiles,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """schedule (tiles, bank tiles): bank tiles without a mask from the front, with one from the back; lengths (tiles,
    2) of both."""
    tile = tl.program_id(0)
    if tile * ROWS < tl.load(counts + 2):
        _, way, label = anchors(order, direction, label1, label2, counts, tile, ROWS)
        used = way > 0
        lowest = tl.min(tl.where(used, label, 2147483647), 0)
        highest = tl.max(tl.where(used, label, -2147483648), 0)
        classes = _class_set(label, used)
        entries = schedule + tl.cast(tile, tl.int64) * bank_tiles
        free = 0
        mixed = 0
        for start in range(0, bank_tiles, BLOCK):
            other = start + tl.arange(0, BLOCK)
            inside = other < bank_tiles
            low = tl.load(summary + other, mask=inside, other=-1)
            high = tl.load(summary + bank_tiles + other, mask=inside, other=-1)
            foreign = ((tl.load(summary + 2 * bank_tiles + other, mask=inside, other=0) & classes) == 0) & (low >= 0)
            own = (low == high) & (lowest == highest) & (low == lowest)
            masked = (high >= 0) & (foreign == 0) & (own == 0)
            is_free = foreign.to(tl.int32)
            is_mixed = masked.to(tl.int32)
            before_free = free + tl.cumsum(is_free, 0) - is_free
            before_mixed = mixed + tl.cumsum(is_mixed, 0) - is_mixed
            tl.store(entries + before_free, other, mask=foreign)
            tl.store(entries + bank_tiles - 1 - before_mixed, other, mask=masked)
            free += tl.sum(is_free, 0)
            mixed += tl.sum(is_mixed, 0)
        tl.store(lengths + 2 * tile, free)
        tl.store(lengths + 2 * tile + 1, mixed)


@jit
def shares_of(tiles, bank_tiles, programs, slots, SHARES: tl.constexpr):
    """Into how many shares every schedule is cut: what finishes first, a share costing its tiles and about 3 more."""
    share = tl.arange(0, SHARES) + 1
    waves = (tiles * share + programs - 1) // programs
    cost = waves * ((bank_tiles + share - 1) // share + 3)
    return tl.argmin(tl.where((share == 1) | (tiles * share <= slots), cost, 2147483647), 0) + 1
