"""Pseudo-labels: the most probable class of bilinearly upsampled logits and its probability.

With z = upsample(logits), label = argmax_c z_c (lowest index on ties) and confidence = 1 / sum_c exp(z_c - z_label).
The mixed form takes z from a second network output inside toggled boxes (see `cutmix`), which equals mixing both
upsampled logits with a 0/1 mask as CPS does (Chen et al., CVPR 2021). The argmax of upsampled logits is not the
upsampled argmax.

Interpolation, softmax and max move at least 4 B C H W elements, mixing 4 more; fused, B C h w elements are read (twice
that if mixed) and 5 bytes per pixel written. What remains is arithmetic: per class and pixel one exponential and about
18 FLOPs, of which 9 interpolate (27 and 18 if mixed). Without confidence there is a byte per pixel and no exponential.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, check_flag, check_size, check_tensor, outside_autocast
from .cpu import pseudo_label as cpu
from .cutmix import check_boxes
from .gpu import pseudo_label as gpu

LARGEST_CLASSES = 255
"""A label is a uint8, of which 255 stands for a pixel to be ignored."""


def _empty(logits: Tensor, size: Sequence[int], with_confidence: bool) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], *size)
    confidence = logits.new_empty(shape if with_confidence else (0,), dtype=torch.float32)
    return logits.new_empty(shape, dtype=torch.uint8), confidence


@torch.library.custom_op("semiseg::pseudo_label", mutates_args=())
def _operator(
    logits: Tensor, height: int, width: int, align_corners: bool, with_confidence: bool
) -> tuple[Tensor, Tensor]:
    """Label and confidence; the latter empty if unwanted."""
    label, confidence = _empty(logits, (height, width), with_confidence)
    implementation = gpu if _dispatch.provider_of(logits) == "triton" else cpu
    implementation.pseudo_label(logits, align_corners, label, confidence if with_confidence else None)
    return label, confidence


@_operator.register_fake
def _(logits, height, width, align_corners, with_confidence):
    return _empty(logits, (height, width), with_confidence)


@torch.library.custom_op("semiseg::mixed_pseudo_label", mutates_args=())
def _mixed_operator(
    logits_a: Tensor,
    logits_b: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    align_corners: bool,
    with_confidence: bool,
) -> tuple[Tensor, Tensor]:
    label, confidence = _empty(logits_a, (height, width), with_confidence)
    implementation = gpu if _dispatch.provider_of(logits_a) == "triton" else cpu
    implementation.mixed_pseudo_label(
        logits_a, logits_b, boxes, align_corners, label, confidence if with_confidence else None
    )
    return label, confidence


@_mixed_operator.register_fake
def _(logits_a, logits_b, boxes, height, width, align_corners, with_confidence):
    return _empty(logits_a, (height, width), with_confidence)


def check_classes(name: str, logits: Tensor, most: int = LARGEST_CLASSES) -> None:
    """Raise unless `logits` is a non-empty (B, C, h, w) float tensor of at most so many classes."""
    check_tensor(name, logits, (None, None, None, None), FLOATS)
    if not 1 <= logits.shape[1] <= most or logits.shape[2] == 0 or logits.shape[3] == 0:
        raise ValueError(f"{name} must have 1 to {most} classes and some pixels, not shape {tuple(logits.shape)}")


@outside_autocast
def pseudo_label(
    logits: Tensor, size: Sequence[int], *, align_corners: bool = True, confidence: bool = True
) -> tuple[Tensor, Tensor | Any]:
    """Most probable class of bilinearly upsampled logits, with its softmax probability.

    logits: (B, C, h, w) float, finite, C <= 255, so that no label is 255; not differentiated. size: (H, W).
    Returns label (B, H, W) uint8, the lowest index on ties, and confidence (B, H, W) float32 in [1/C, 1]; with
    `confidence` off the same label and None, at less arithmetic.
    Raises TypeError or ValueError naming the argument.
    """
    check_classes("logits", logits)
    height, width = check_size(size)
    check_flag("align_corners", align_corners)
    check_flag("confidence", confidence)
    logits = logits.detach()
    if _dispatch.provider_of(logits, "pseudo_label") == "plain":
        return reference.pseudo_label(logits, (height, width), align_corners=align_corners, confidence=confidence)
    label, probability = _operator(logits, height, width, align_corners, confidence)
    return label, probability if confidence else None


@outside_autocast
def mixed_pseudo_label(
    logits_a: Tensor,
    logits_b: Tensor,
    boxes: Tensor,
    size: Sequence[int],
    *,
    align_corners: bool = True,
    confidence: bool = True,
) -> tuple[Tensor, Tensor | Any]:
    """Pseudo-label of two upsampled logits mixed as `cutmix` mixes their images: b inside the toggled boxes, else a.

    logits_a, logits_b: (B, C, h, w) float of one dtype, finite, C <= 255, so that no label is 255; not differentiated.
    boxes: (B, n, 4) signed int (y0, x0, y1, x1) in pixels of `size` = (H, W), ends exclusive.
    Returns label (B, H, W) uint8, the lowest index on ties, and confidence (B, H, W) float32 in [1/C, 1]; with
    `confidence` off the same label and None, at less arithmetic.
    Raises TypeError or ValueError naming the argument.
    """
    check_classes("logits_a", logits_a)
    check_tensor("logits_b", logits_b, tuple(logits_a.shape), (logits_a.dtype,), logits_a.device)
    check_boxes(boxes, logits_a.shape[0], logits_a.device)
    height, width = check_size(size)
    check_flag("align_corners", align_corners)
    check_flag("confidence", confidence)
    logits_a, logits_b = logits_a.detach(), logits_b.detach()
    if _dispatch.provider_of(logits_a, "mixed_pseudo_label") == "plain":
        return reference.mixed_pseudo_label(
            logits_a, logits_b, boxes, (height, width), align_corners=align_corners, confidence=confidence
        )
    label, probability = _mixed_operator(logits_a, logits_b, boxes, height, width, align_corners, confidence)
    return label, probability if confidence else None
