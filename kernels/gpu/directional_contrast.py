"""The directional contrastive loss on a GPU, five launches, every count staying on the device:

    compact, summarise, schedule    which tiles of anchors are scored with which tiles of negatives, see `schedule.py`
    score       sum of exp(s) and of exp(s) n for a tile of anchors over a share of its schedule (split-K: the shares
                are as many as keep the device busy for the number of active rows)
    finish      shares added up, losses, gradients

Unit vectors bound the scores by 1/t, which is what is subtracted before exp: shares simply add. Below t = 0.0245
float32 could underflow (float16, which exponentials are multiplied in if features are, below 0.0995), and a running
maximum is kept instead. Exponentials are powers of two, s log2(e).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._triton import (
    INTERPRETED,
    Configuration,
    ceil_div,
    choose,
    jit,
    launch,
    multiprocessors,
    next_power_of_two,
    tl,
)
from ..precision import exact_fp32
from .exponentials import LN_2, LOG2_E
from .schedule import anchors, compact_kernel, schedule_kernel, shares_of, summarise_kernel

LARGEST_CHANNELS = 256
"""An anchor tile and its gradient stay on the chip."""
LARGEST_RANGE = {torch.float32: 118.0, torch.bfloat16: 118.0, torch.float16: 29.0}
"""Binary orders of magnitude that exponentials may span in the dtype of products; 1 / (t exp) is finite, too."""
LEAST = -1e30
"""Stands for the logarithm of 0."""


@jit
def _features(of1, of2, row, way, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """(ROWS, BLOCK): rows of `of1` where the direction is 1, of `of2` where it is 2, zeros elsewhere."""
    channel = tl.arange(0, BLOCK)
    offset = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    exists = (channel < CHANNELS)[None, :]
    one = tl.load(of1 + offset, mask=exists & (way == 1)[:, None], other=0.0)
    two = tl.load(of2 + offset, mask=exists & (way == 2)[:, None], other=0.0)
    return one + two


@jit
def _add_tile(
    anchor, label, level, total, weighted, negatives, negative_labels, tile, bank, scale, headroom,
    MASKED: tl.constexpr, WITH_GRADIENT: tl.constexpr, ONLINE: tl.constexpr, PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """level, sum of 2^(s - level) and sum of 2^(s - level) n with one tile of negatives added."""
    lane = tl.arange(0, COLUMNS)
    channel = tl.arange(0, BLOCK)
    base = negatives + tl.cast(tile, tl.int64) * COLUMNS * CHANNELS
    offset = lane[:, None] * CHANNELS + channel[None, :]
    # A tile that needs no mask is full: only a padded channel has to be kept out of it.
    if MASKED:
        inside = tile * COLUMNS + lane < bank
        other = tl.load(negative_labels + tile * COLUMNS + lane, mask=inside, other=0).to(tl.int32)
        other = tl.where(inside, other, -1)
        foreign = (other >= 0)[None, :] & (other[None, :] != label[:, None])
        # An empty slot may hold anything, which 0 times it would let in.
        negative = tl.load(base + offset, mask=(other >= 0)[:, None] & (channel < CHANNELS)[None, :], other=0.0)
    elif CHANNELS == BLOCK:
        negative = tl.load(base + offset)
    else:
        negative = tl.load(base + offset, mask=(channel < CHANNELS)[None, :], other=0.0)
    scores = tl.dot(anchor, tl.trans(negative), input_precision=PRECISION) * scale
    if ONLINE:
        if MASKED:
            scores = tl.where(foreign, scores, -float("inf"))
        higher = tl.maximum(level, tl.max(scores, 1) - headroom)
        shrink = tl.exp2(level - higher)
        total *= shrink
        if WITH_GRADIENT:
            weighted *= shrink[:, None]
        level = higher
    exps = tl.exp2(scores - level[:, None])
    if MASKED:
        exps = tl.where(foreign, exps, 0.0)
    total += tl.sum(exps, 1)
    if WITH_GRADIENT:
        weighted = tl.dot(exps.to(negative.dtype), negative, weighted, input_precision=PRECISION)
    return level, total, weighted


@jit
def _score_kernel(
    feat1, feat2, label1, label2, order, direction, counts, negatives, negative_labels, schedule, lengths,
    levels, totals, sums, bank, bank_tiles, scale, headroom, programs, slots,
    WITH_GRADIENT: tl.constexpr, ONLINE: tl.constexpr, PRECISION: tl.constexpr, SHARES: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """levels, totals (slots, ROWS) and sums (slots, ROWS, C): slot s * tiles + t holds share s of anchor tile t."""
    tiles = (tl.load(counts + 2) + ROWS - 1) // ROWS
    shares = shares_of(tiles, bank_tiles, programs, slots, SHARES)
    lane = tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    # Programs that run side by side take the same share of different anchors: they read the same negatives.
    for slot in range(tl.program_id(0), tiles * shares, programs):
        tile = slot % tiles
        share = slot // tiles
        row, way, label = anchors(order, direction, label1, label2, counts, tile, ROWS)
        anchor = _features(feat1, feat2, row, way, CHANNELS, BLOCK)
        if ONLINE:
            target = _features(feat2, feat1, row, way, CHANNELS, BLOCK)
            level = tl.sum(anchor.to(tl.float32) * target.to(tl.float32), 1) * scale - headroom
        else:
            level = tl.zeros((ROWS,), tl.float32) + (scale - headroom)
        total = tl.zeros((ROWS,), tl.float32)
        weighted = tl.zeros((ROWS, BLOCK), tl.float32)
        entries = schedule + tl.cast(tile, tl.int64) * bank_tiles
        free = tl.load(lengths + 2 * tile)
        length = free + tl.load(lengths + 2 * tile + 1)
        begin = length * share // shares
        end = length * (share + 1) // shares
        for entry in range(begin, tl.minimum(end, free)):
            level, total, weighted = _add_tile(
                anchor, label, level, total, weighted, negatives, negative_labels, tl.load(entries + entry), bank,
                scale, headroom, False, WITH_GRADIENT, ONLINE, PRECISION, COLUMNS, CHANNELS, BLOCK,
            )  # fmt: skip
        for entry in range(tl.maximum(begin, free), end):
            level, total, weighted = _add_tile(
                anchor, label, level, total, weighted, negatives, negative_labels,
                tl.load(entries + bank_tiles - 1 - (entry - free)), bank,
                scale, headroom, True, WITH_GRADIENT, ONLINE, PRECISION, COLUMNS, CHANNELS, BLOCK,
            )  # fmt: skip
        place = tl.cast(slot, tl.int64) * ROWS + lane
        tl.store(totals + place, total)
        if ONLINE:
            tl.store(levels + place, level)
        if WITH_GRADIENT:
            offset = place[:, None] * CHANNELS + channel[None, :]
            tl.store(sums + offset, weighted, mask=(channel < CHANNELS)[None, :])


@jit
def _finish_kernel(
    feat1, feat2, order, direction, counts, levels, totals, sums, losses, gradient, lse, factor,
    rows, bank_tiles, scale, headroom, temperature, log_eps, programs, slots,
    WITH_GRADIENT: tl.constexpr, ONLINE: tl.constexpr, LN_2: tl.constexpr, SHARES: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, FINISH_ROWS: tl.constexpr,
):  # fmt: skip
    """losses (programs of this kernel, 2), gradient (N, C), lse and factor (N,), the latter three 0 if not active."""
    active = tl.load(counts + 2)
    tiles = (active + ROWS - 1) // ROWS
    shares = shares_of(tiles, bank_tiles, programs, slots, SHARES)
    position = tl.program_id(0) * FINISH_ROWS + tl.arange(0, FINISH_ROWS)
    channel = tl.arange(0, BLOCK)
    inside = position < rows
    used = position < active
    row = tl.load(order + position, mask=inside, other=0)
    way = tl.load(direction + row, mask=used, other=0)
    anchor = _features(feat1, feat2, row, way, CHANNELS, BLOCK).to(tl.float32)
    target = _features(feat2, feat1, row, way, CHANNELS, BLOCK).to(tl.float32)
    positive = tl.sum(anchor * target, 1) * scale

    place = (position // ROWS).to(tl.int64) * ROWS + position % ROWS
    stride = tl.cast(tiles, tl.int64) * ROWS
    level = tl.zeros((FINISH_ROWS,), tl.float32) + (scale - headroom)
    if ONLINE:
        level = positive - headroom
        for share in range(shares):
            level = tl.maximum(level, tl.load(levels + share * stride + place, mask=used, other=-float("inf")))
    total = tl.zeros((FINISH_ROWS,), tl.float32)
    weighted = tl.zeros((FINISH_ROWS, BLOCK), tl.float32)
    for share in range(shares):
        part = share * stride + place
        shrink = tl.full((FINISH_ROWS,), 1.0, tl.float32)
        if ONLINE:
            shrink = tl.exp2(tl.load(levels + part, mask=used, other=-float("inf")) - level)
        total += shrink * tl.load(totals + part, mask=used, other=0.0)
        if WITH_GRADIENT:
            exists = used[:, None] & (channel < CHANNELS)[None, :]
            offset = part[:, None] * CHANNELS + channel[None, :]
            weighted += shrink[:, None] * tl.load(sums + offset, mask=exists, other=0.0)

    denominator = tl.exp2(positive - level) + total
    # Logarithms: q itself may underflow. `log_eps` is finite also where eps is 0.
    log_q = (positive - level) * LN_2 - tl.log(denominator)
    larger = tl.maximum(log_q, log_eps)
    of_q, of_eps = tl.exp(log_q - larger), tl.exp(log_eps - larger)
    count = tl.where(way == 1, tl.load(counts), tl.load(counts + 1)).to(tl.float32)
    share_of_mean = tl.where(way > 0, 1 / tl.maximum(count, 1.0), 0.0)
    loss = -(larger + tl.log(of_q + of_eps)) * share_of_mean
    row_factor = of_q / (of_q + of_eps) * share_of_mean
    tl.store(losses + 2 * tl.program_id(0), tl.sum(tl.where(way == 1, loss, 0.0), 0))
    tl.store(losses + 2 * tl.program_id(0) + 1, tl.sum(tl.where(way == 2, loss, 0.0), 0))
    tl.store(factor + row, row_factor, mask=inside)
    tl.store(lse + row, tl.where(way > 0, tl.log(denominator) + level * LN_2, 0.0), mask=inside)
    if WITH_GRADIENT:
        slope = row_factor / (denominator * temperature)
        change = slope[:, None] * (weighted - total[:, None] * target)
        offset = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        tl.store(gradient + offset, tl.where((way > 0)[:, None], change, 0.0),
                 mask=inside[:, None] & (channel < CHANNELS)[None, :])  # fmt: skip


@jit
def _negatives_kernel(
    feat1, feat2, label1, label2, order, direction, counts, weight, lse, negatives, negative_labels, gradient,
    bank, scale, headroom, PRECISION: tl.constexpr, LOG2_E: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gradient (K, C): sum over the active rows of weight_i exp(s_ik - lse_i) f_i, times 2^headroom."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.arange(0, BLOCK)
    inside = column < bank
    own = tl.where(inside, tl.load(negative_labels + column, mask=inside, other=0).to(tl.int32), -1)
    offset = column.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    real = (channel < CHANNELS)[None, :]
    negative = tl.load(negatives + offset, mask=(own >= 0)[:, None] & real, other=0.0)
    change = tl.zeros((COLUMNS, BLOCK), tl.float32)
    tiles = (tl.load(counts + 2) + ROWS - 1) // ROWS
    for tile in range(tiles):
        row, way, label = anchors(order, direction, label1, label2, counts, tile, ROWS)
        anchor = _features(feat1, feat2, row, way, CHANNELS, BLOCK)
        level = tl.load(lse + row, mask=way > 0, other=0.0) * LOG2_E - headroom
        scores = tl.dot(negative, tl.trans(anchor), input_precision=PRECISION) * scale
        foreign = (own >= 0)[:, None] & (own[:, None] != label[None, :]) & (way > 0)[None, :]
        # The exponential of an own-class score is not bounded by its row's sum: masked before, not after.
        exps = tl.exp2(tl.where(foreign, scores - level[None, :], -float("inf")))
        exps *= tl.load(weight + row, mask=way > 0, other=0.0)[None, :]
        change = tl.dot(exps.to(anchor.dtype), anchor, change, input_precision=PRECISION)
    tl.store(gradient + offset, change, mask=inside[:, None] & real)


def _tile(rows: int, columns: int, warps: int = 4, stages: int = 2, **more: int) -> Configuration:
    return Configuration({"ROWS": rows, "COLUMNS": columns, **more}, warps=warps, stages=stages)


_TESTED, _SMALL = _tile(32, 32, RESIDENT=1), _tile(32, 32)
SCORE = {
    "half": {
        0: _TESTED,
        80: _tile(64, 64, 4, 3, RESIDENT=2),
        90: _tile(128, 64, 8, 5, RESIDENT=1),
        100: _tile(128, 64, 8, 5, RESIDENT=1),
        120: _tile(64, 64, 4, 3, RESIDENT=1),
    },
    "half wide": {0: _TESTED, 80: _tile(64, 32, 8, 2, RESIDENT=1)},
    "single": {0: _TESTED, 80: _tile(32, 32, 4, 2, RESIDENT=2), 90: _tile(64, 32, 8, 2, RESIDENT=1)},
    "single wide": {0: _TESTED, 80: _tile(64, 16, 8, 2, RESIDENT=1), 90: _tile(32, 32, 8, 2, RESIDENT=1)},
}
"""Anchors and negatives of a tile, and programs resident on a multiprocessor, for features of two or four bytes, wide
with more than 128 channels. Chosen for few spilled registers and copies that run ahead; not yet tuned on a GPU."""
NEGATIVES = {
    "half": {
        0: _SMALL,
        80: _tile(32, 64, 4, 3),
        90: _tile(64, 128, 8, 3),
        100: _tile(128, 64, 8, 3),
        120: _tile(32, 64),
    },
    "half wide": {0: _SMALL, 80: _tile(32, 64, 8, 2)},
    "single": {0: _SMALL, 80: _tile(32, 32, 8, 1)},
    "single wide": {0: _SMALL, 80: _tile(32, 32, 8, 1)},
}
CANDIDATES = [
    _tile(rows, columns, warps, stages, RESIDENT=resident)
    for rows, columns, resident, warps in (
        (128, 128, 1, 8), (128, 64, 1, 8), (128, 64, 2, 4), (128, 64, 1, 4), (64, 128, 2, 4), (64, 64, 2, 4),
        (64, 64, 3, 4), (64, 32, 2, 4), (64, 32, 1, 8), (32, 32, 2, 4),
    )
    for stages in (2, 3, 5, 7)
]  # fmt: skip
"""What SEMISEG_AUTOTUNE=1 tries for SCORE."""
SHARES = 64
COMPACT_ROWS, SCHEDULE_TILES, FINISH_ROWS = 2048, 1024, 16


def _settings(features: Tensor) -> tuple[int, str, float, str]:
    """Padded channels, precision of products, headroom of exponentials in binary orders, kind of configuration."""
    block = max(16, next_power_of_two(features.shape[1]))
    precision = "ieee" if features.dtype == torch.float32 and exact_fp32() else "tf32"
    # Exponentials are multiplied in the dtype of the features. float16 has few orders of magnitude below 1: they are
    # moved up to where the largest is 2^15, still finite where rounding makes a unit vector longer than 1.
    headroom = 15.0 if features.dtype == torch.float16 else 0.0
    kind = ("single" if features.dtype == torch.float32 else "half") + (" wide" if block > 128 else "")
    return block, precision, headroom, kind


def directional_contrast(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    conf1: Tensor,
    conf2: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    valid: Tensor | None,
    temperature: float,
    threshold: float,
    eps: float,
    with_gradient: bool,
    by_class: bool,
    product_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator on a GPU: five launches and one sum."""
    (rows, channels), bank, device = feat1.shape, len(negatives), feat1.device
    sequence = None
    if by_class:
        sequence = torch.where(conf1 < conf2, label1, label2).argsort()
        order_of_bank = negative_labels.argsort()
        negatives, negative_labels = negatives[order_of_bank], negative_labels[order_of_bank]
    factor1, factor2, negatives = _factors(feat1, feat2, negatives, product_dtype)
    feat1, feat2, label1, label2, conf1, conf2, negative_labels = (
        part.contiguous() for part in (feat1, feat2, label1, label2, conf1, conf2, negative_labels)
    )
    valid = None if valid is None else valid.contiguous()
    block, precision, headroom, kind = _settings(negatives)
    scale = LOG2_E / temperature
    log_eps = math.log(eps) if eps else LEAST

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    direction = empty(rows, dtype=torch.int8)
    gradient = empty(rows if with_gradient else 0, channels)
    lse, factor = empty(rows), empty(rows)
    if rows == 0:
        return torch.zeros(2, dtype=torch.float32, device=device), direction, gradient, lse, factor

    def run(configuration: Configuration) -> Tensor:
        blocks = dict(configuration.blocks)
        programs = blocks.pop("RESIDENT") * multiprocessors(device)
        tile, width = blocks["ROWS"], blocks["COLUMNS"]
        tiles, bank_tiles = ceil_div(rows, tile), ceil_div(bank, width)
        slots = max(tiles, 2 * programs)
        order, counts = empty(rows, dtype=torch.int32), empty(3, dtype=torch.int32)
        summary = empty(3, bank_tiles, dtype=torch.int32)
        schedule, lengths = empty(tiles, bank_tiles, dtype=torch.int32), empty(tiles, 2, dtype=torch.int32)
        online = 2 * scale > LARGEST_RANGE[negatives.dtype]
        levels = empty(slots if online else 0, tile)
        totals, sums = empty(slots, tile), empty(slots if with_gradient else 0, tile, channels)
        losses = empty(ceil_div(rows, FINISH_ROWS), 2)
        constants = {"WITH_GRADIENT": with_gradient, "ONLINE": online, "SHARES": SHARES}
        constants |= {"CHANNELS": channels, "BLOCK": block}
        launch(
            compact_kernel, (ceil_div(rows, COMPACT_ROWS),),
            conf1, conf2, valid, sequence, direction, order, counts, rows, threshold,
            HAS_VALID=valid is not None, HAS_SEQUENCE=by_class, BLOCK=COMPACT_ROWS, warps=8,
        )  # fmt: skip
        if bank:
            launch(summarise_kernel, (bank_tiles,), negative_labels, summary, bank, bank_tiles, COLUMNS=width)
        launch(
            schedule_kernel, (tiles,),
            order, direction, label1, label2, counts, summary, schedule, lengths, bank_tiles,
            ROWS=tile, BLOCK=min(SCHEDULE_TILES, next_power_of_two(bank_tiles)),
        )  # fmt: skip
        launch(
            _score_kernel, (min(programs, tiles * SHARES),),
            factor1, factor2, label1, label2, order, direction, counts, negatives, negative_labels, schedule, lengths,
            levels, totals, sums, bank, bank_tiles, scale, headroom, min(programs, tiles * SHARES), slots,
            PRECISION=precision, **constants, **blocks, warps=configuration.warps, stages=configuration.stages,
        )  # fmt: skip
        launch(
            _finish_kernel, (ceil_div(rows, FINISH_ROWS),),
            feat1, feat2, order, direction, counts, levels, totals, sums, losses, gradient, lse, factor,
            rows, bank_tiles, scale, headroom, temperature, log_eps, min(programs, tiles * SHARES), slots,
            LN_2=LN_2, ROWS=tile, FINISH_ROWS=FINISH_ROWS, **constants,
        )  # fmt: skip
        return losses.sum(0)

    key = (negatives.dtype, block, rows.bit_length(), bank.bit_length(), with_gradient)
    configuration = choose("directional_contrast", SCORE[kind], device, key, CANDIDATES, run)
    return run(configuration), direction, gradient, lse, factor


def directional_contrast_negatives(
    feat1: Tensor,
    feat2: Tensor,
    label1: Tensor,
    label2: Tensor,
    direction: Tensor,
    weight: Tensor,
    lse: Tensor,
    negatives: Tensor,
    negative_labels: Tensor,
    temperature: float,
    product_dtype: torch.dtype | None,
) -> Tensor:
    """The gradient of the negatives on a GPU: one pass over the active rows for each tile of negatives."""
    (bank, channels), device = negatives.shape, negatives.device
    factor1, factor2, negatives = _factors(feat1, feat2, negatives, product_dtype)
    block, precision, headroom, kind = _settings(negatives)
    gradient = torch.empty((bank, channels), dtype=torch.float32, device=device)
    if bank == 0:
        return gradient
    active = direction > 0
    order = active.logical_not().to(torch.uint8).argsort(stable=True).to(torch.int32)
    counts = active.sum(dtype=torch.int32).expand(3).contiguous()
    # Weights are brought to at most 1, so that a product with an exponential keeps to the range of float16.
    peak = weight.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) if len(weight) else weight.new_ones(())
    configuration = choose("directional_contrast_negatives", NEGATIVES[kind], device)
    launch(
        _negatives_kernel, (ceil_div(bank, configuration.blocks["COLUMNS"]),),
        factor1, factor2, label1.contiguous(), label2.contiguous(), order, direction.contiguous(), counts,
        (weight / peak).contiguous(), lse.contiguous(), negatives, negative_labels.contiguous(), gradient,
        bank, LOG2_E / temperature, headroom, PRECISION=precision, LOG2_E=LOG2_E, CHANNELS=channels, BLOCK=block,
        **configuration.blocks, warps=configuration.warps, stages=configuration.stages,
    )  # fmt: skip
    return gradient.mul_(peak * (2.0**-headroom / temperature))


def _factors(
    feat1: Tensor, feat2: Tensor, negatives: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous, in `dtype`, or in the widest of their dtypes, float32 at most."""
    if dtype is None:
        dtype = torch.promote_types(feat1.dtype, negatives.dtype)
        dtype = torch.float32 if dtype == torch.float64 else dtype
    if INTERPRETED and dtype == torch.bfloat16:  # whose products are wrong in Triton's interpreter
        dtype = torch.float32
    return feat1.to(dtype).contiguous(), feat2.to(dtype).contiguous(), negatives.to(dtype).contiguous()
