"""Exponentials on a GPU, which has them as powers of 2: exp(z) = 2^(z log2 e)."""

from __future__ import annotations

import math

from .._triton import jit, tl

LOG2_E, LN_2 = math.log2(math.e), math.log(2)


@jit
def grow(value, largest, total):
    """The largest value z so far and the sum of 2^(z - largest) after one more, at one exponential: of
    2^(largest - new largest) and 2^(value - new largest) one is 1."""
    above = value - largest
    smaller = tl.exp2(-tl.abs(above))
    return tl.maximum(largest, value), tl.where(above > 0, total * smaller + 1, total + smaller)
