"""Plain definitions of cross-entropy on upsampled logits, with and without hard-example mining."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._arguments import accumulation_dtype


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear upsampling of (B, C, h, w) to (B, C, H, W), in at least float32."""
    logits = logits.to(accumulation_dtype(logits.dtype))
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    align_corners: bool = True,
    ignore_index: int = 255,
    reduction: str = "mean",
    deterministic: bool = False,
) -> Tensor:
    """Interpolate, then cross-entropy. Arguments as in `semiseg.kernels.upsample_cross_entropy`."""
    target = target.long()
    full = upsample(logits, tuple(target.shape[-2:]), align_corners)
    losses = F.cross_entropy(full, target, ignore_index=ignore_index, reduction="none")
    if pixel_weight is not None:
        losses = losses * pixel_weight.detach().to(losses.dtype)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (target != ignore_index).sum().clamp(min=1)


def upsample_ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int,
    align_corners: bool = True,
    ignore_index: int = 255,
) -> Tensor:
    """Mean cross-entropy of the hard pixels. Arguments as in `semiseg.kernels.upsample_ohem_cross_entropy`."""
    losses = upsample_cross_entropy(
        logits, target, align_corners=align_corners, ignore_index=ignore_index, reduction="none"
    )
    return mean_of_hard_pixels(losses, target != ignore_index, threshold, min_kept)


def mean_of_hard_pixels(losses: Tensor, valid: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Mean of `losses` (B, H, W) over the valid pixels whose true-class probability is among the lowest.

    The bound is the larger of `threshold` and the `min_kept`-th smallest probability, ignored pixels counting as 1.
    With fewer than `min_kept` valid pixels all of them are kept.
    """
    probability = torch.where(valid, torch.exp(-losses.detach()), 1).flatten()
    rank = min(min_kept, probability.numel())
    # On the CPU selection is several times faster than sorting; on CUDA only sorting is deterministic by contract.
    if rank == 0:
        bound = threshold
    elif probability.device.type == "cpu":
        bound = probability.kthvalue(rank).values.clamp(min=threshold)
    else:
        bound = probability.sort().values[rank - 1].clamp(min=threshold)
    hard = (probability <= bound).view_as(valid)
    kept = valid & (hard | (valid.sum() < min_kept))
    return torch.where(kept, losses, 0).sum() / kept.sum().clamp(min=1)
