"""Confusion matrix of bilinearly upsampled logits against targets, for evaluation.

    counts[t, p] = number of pixels with target t, t != ignore_index, and argmax_c upsample(logits)_c = p

Interpolation and argmax move at least 2 B C H W elements; fused, B C h w logits and B H W targets are read and C^2
counts added to, with about 11 FLOPs per class and pixel and no exponential. Counts are integers, so that the order of
additions changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import TARGETS, check_flag, check_integer, check_tensor, outside_autocast
from .cpu import upsample_confusion as cpu
from .gpu import upsample_confusion as gpu
from .pseudo_label import check_classes


@torch.library.custom_op("semiseg::upsample_confusion", mutates_args=())
def _operator(logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int) -> Tensor:
    implementation = gpu if _dispatch.provider_of(logits) == "triton" else cpu
    return implementation.upsample_confusion(logits, target, align_corners, ignore_index)


@_operator.register_fake
def _(logits, target, align_corners, ignore_index):
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)


@outside_autocast
def upsample_confusion(
    logits: Tensor, target: Tensor, num_classes: int, *, align_corners: bool = True, ignore_index: int = 255
) -> Tensor:
    """Confusion counts of the argmax of bilinearly upsampled logits.

    logits: (B, num_classes, h, w) float, finite, not differentiated, of at most 256 classes. target: (B, H, W) int (not
    int8); pixels that hold `ignore_index` or no class in [0, num_classes) are not counted.
    Returns (num_classes, num_classes) int64, rows = target, columns = prediction (the lowest index on ties).
    Raises TypeError or ValueError naming the argument.
    """
    check_classes("logits", logits, 256)
    check_integer("num_classes", num_classes)
    check_integer("ignore_index", ignore_index)
    check_flag("align_corners", align_corners)
    if logits.shape[1] != num_classes:
        raise ValueError(f"num_classes is {num_classes}, but logits have {logits.shape[1]} classes")
    check_tensor("target", target, (logits.shape[0], None, None), TARGETS, logits.device)
    if target.numel() == 0:
        return torch.zeros((num_classes, num_classes), dtype=torch.int64, device=logits.device)
    logits = logits.detach()
    if _dispatch.provider_of(logits, "upsample_confusion") == "plain":
        return reference.upsample_confusion(
            logits, target, num_classes, align_corners=align_corners, ignore_index=ignore_index
        )
    return _operator(logits, target, align_corners, ignore_index)
