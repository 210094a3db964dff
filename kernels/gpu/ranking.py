"""The k-th smallest of many probabilities, without sorting them and without the host waiting.

Floats that are not negative are ordered as their bits are, and those of [0, 1] differ in the lowest 30 bits only. From
the highest digit on, one pass counts the values of each digit among those that agree with the answer so far; the digit
where the counts reach k is the answer's next. Counts are integers, so that any order of adding them gives the same.

Five passes read 4 bytes a value each and write nothing to speak of; a radix sort also writes in every pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton import Configuration, ceil_div, choose, jit, launch, multiprocessors, tl

DIGIT_BITS = 6
PASSES = 5
"""Short digits: older versions of Triton count by votes of a warp, at a cost that grows with the number of bins."""

BAKED = {0: Configuration({"VALUES": 256}), 80: Configuration({"VALUES": 2048}, warps=8)}


@jit
def _select(counts, rank, PASSES: tl.constexpr, DIGIT_BITS: tl.constexpr):
    """The highest PASSES digits of the answer, and its rank (from 1) among the values that begin with them."""
    digits = tl.arange(0, 1 << DIGIT_BITS)
    prefix = 0
    for digit_pass in tl.static_range(PASSES):
        count = tl.load(counts + (digit_pass << DIGIT_BITS) + digits)
        digit = tl.sum((tl.cumsum(count, 0) < rank).to(tl.int32))
        rank -= tl.sum(tl.where(digits < digit, count, 0))
        prefix = (prefix << DIGIT_BITS) + digit
    return prefix, rank


@jit
def _count_digits(
    values, counts, size, rank, PASS: tl.constexpr, PASSES: tl.constexpr, DIGIT_BITS: tl.constexpr,
    VALUES: tl.constexpr,
):  # fmt: skip
    BITS: tl.constexpr = PASSES * DIGIT_BITS
    SHIFT: tl.constexpr = BITS - (PASS + 1) * DIGIT_BITS
    DIGITS: tl.constexpr = 1 << DIGIT_BITS
    prefix, _ = _select(counts, rank, PASS, DIGIT_BITS)
    # Values that do not count go to the upper half of the bins.
    found = tl.zeros((2 * DIGITS,), tl.int32)
    for first in range(tl.program_id(0).to(tl.int64) * VALUES, size, tl.num_programs(0).to(tl.int64) * VALUES):
        place = first + tl.arange(0, VALUES)
        # Masking the sign and the highest bit of the exponent keeps NaN in range, above 1.
        bits = tl.load(values + place, mask=place < size, other=0.0).to(tl.int32, bitcast=True) & ((1 << BITS) - 1)
        leading = bits >> SHIFT
        counted = (place < size) & (leading >> DIGIT_BITS == prefix)
        found += tl.histogram(tl.where(counted, leading & (DIGITS - 1), DIGITS), 2 * DIGITS)
    bins = tl.arange(0, 2 * DIGITS)
    tl.atomic_add(counts + PASS * DIGITS + bins, found, mask=(bins < DIGITS) & (found > 0), sem="relaxed")


@jit
def _answer(counts, answer, rank, PASSES: tl.constexpr, DIGIT_BITS: tl.constexpr):
    bits, _ = _select(counts, rank, PASSES, DIGIT_BITS)
    tl.store(answer, bits.to(tl.float32, bitcast=True))


def kth_smallest(values: Tensor, rank: int) -> Tensor:
    """The `rank`-th smallest (from 1) of `values` (n,) in [0, 1]."""
    values = values.contiguous()
    config = choose("kth_smallest", BAKED, values.device)
    counts = torch.zeros(PASSES << DIGIT_BITS, dtype=torch.int32, device=values.device)
    answer = values.new_empty(())
    programs = min(ceil_div(values.numel(), config.blocks["VALUES"]), 4 * multiprocessors(values.device))
    for digit_pass in range(PASSES):
        launch(
            _count_digits, (programs,), values, counts, values.numel(), rank, warps=config.warps, stages=config.stages,
            PASS=digit_pass, PASSES=PASSES, DIGIT_BITS=DIGIT_BITS, **config.blocks,
        )  # fmt: skip
    launch(_answer, (1,), counts, answer, rank, warps=1, PASSES=PASSES, DIGIT_BITS=DIGIT_BITS)
    return answer
