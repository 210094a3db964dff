"""The k-th smallest of many probabilities, without the host waiting."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _dispatch
from .gpu import ranking as gpu
from .reference.upsample_cross_entropy import kth_smallest as by_selection


@torch.library.custom_op("semiseg::kth_smallest", mutates_args=())
def _operator(values: Tensor, rank: int) -> Tensor:
    if _dispatch.provider_of(values) == "triton":
        return gpu.kth_smallest(values, rank)
    return by_selection(values, rank)


@_operator.register_fake
def _(values, rank):
    return values.new_empty(())


def kth_smallest(values: Tensor, rank: int) -> Tensor:
    """The `rank`-th smallest (from 1) of `values` (n,) in [0, 1], a scalar tensor of their dtype; no gradient.

    Exactly the value that sorting would find. NaN counts as more than 1 and makes for an answer above 1.
    """
    if _dispatch.provider_of(values) == "plain":
        return by_selection(values, rank)
    return _operator(values, rank)
