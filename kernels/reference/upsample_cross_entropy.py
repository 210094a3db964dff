"""Plain definitions of cross-entropy on upsampled logits, with and without hard-example mining."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .upsample import upsample_wide

NOTHING = -100
"""No class, for torch."""


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    align_corners: bool = True,
    ignore_index: int = 255,
    reduction: str = "mean",
    deterministic: bool = False,
) -> Tensor:
    """Interpolate, then cross-entropy. Arguments as in `semiseg.kernels.upsample_cross_entropy`.

    A target that is no class makes the loss and its gradient NaN on all devices.
    """
    target = target.long()
    valid = valid_pixels(target, ignore_index)
    known = (target >= 0) & (target < logits.shape[1])
    full = upsample_wide(logits, target.shape[-2:], align_corners)
    some_class = torch.where(known, target, 0).masked_fill(~valid, NOTHING)
    losses = F.cross_entropy(full, some_class, ignore_index=NOTHING, reduction="none")
    # Ignored pixels and wrong targets are a matter of the weight, so that loss and gradient say the same.
    weight = torch.ones_like(losses) if pixel_weight is None else pixel_weight.detach().to(losses.dtype)
    losses = losses * torch.where(valid, torch.where(known, weight, torch.nan), 0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    count = valid_pixels(target, ignore_index).sum() if normalizer is None else normalizer.detach()
    return losses.sum() / count.to(losses.dtype).clamp(min=1)


def upsample_ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int,
    align_corners: bool = True,
    ignore_index: int = 255,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean cross-entropy of the hard pixels. Arguments as in `semiseg.kernels.upsample_ohem_cross_entropy`."""
    losses = upsample_cross_entropy(
        logits, target, align_corners=align_corners, ignore_index=ignore_index, reduction="none"
    )
    return mean_of_hard_pixels(losses, valid_pixels(target, ignore_index), threshold, min_kept, gather)


def valid_pixels(target: Tensor, ignore_index: int) -> Tensor:
    """Where `target` is not `ignore_index`, which need not fit the dtype of `target`."""
    limits = torch.iinfo(target.dtype)
    if limits.min <= ignore_index <= limits.max:
        return target != ignore_index
    return torch.ones_like(target, dtype=torch.bool)


def kth_smallest(values: Tensor, rank: int) -> Tensor:
    """The `rank`-th smallest (from 1) of `values` (n,)."""
    # On the CPU selection is several times faster than sorting; on CUDA only sorting is deterministic by contract.
    if values.device.type == "cpu":
        return values.kthvalue(rank).values
    return values.sort().values[rank - 1]


def mean_of_hard_pixels(
    losses: Tensor,
    valid: Tensor,
    threshold: float,
    min_kept: int,
    gather: Callable[[Tensor], Tensor] | None = None,
    kth_smallest: Callable[[Tensor, int], Tensor] = kth_smallest,
) -> Tensor:
    """Mean of `losses` (B, H, W) over the valid pixels whose true-class probability is among the lowest.

    The bound is the larger of `threshold` and the `min_kept`-th smallest probability, ignored pixels counting as 1.
    With fewer than `min_kept` valid pixels all of them are kept. A loss that is NaN is kept.
    """

    def total(count: Tensor) -> Tensor:
        return count if gather is None else gather(count[None]).sum()

    probability = torch.where(valid, torch.exp(-losses.detach()), 1).flatten()
    bound: float | Tensor = threshold
    if min_kept > 0:
        everyones = probability if gather is None else gather(probability)
        bound = kth_smallest(everyones, min(min_kept, everyones.numel())).clamp(min=threshold)
    easy = (probability > bound).view_as(valid) & (total(valid.sum()) >= min_kept)
    kept = valid & ~easy
    return torch.where(kept, losses, 0).sum() / total(kept.sum()).clamp(min=1)
