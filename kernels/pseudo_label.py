"""Pseudo-labels: the most probable class of bilinearly upsampled logits and its probability.

With z = upsample(logits), label = argmax_c z_c (lowest index on ties) and confidence = 1 / sum_c exp(z_c - z_label).
The mixed form takes z from a second network output inside toggled boxes (see `cutmix`), which equals mixing both
upsampled logits with a 0/1 mask as CPS does (Chen et al., CVPR 2021). The argmax of upsampled logits is not the
upsampled argmax.

Interpolation, softmax and max move about 5 B C H W elements; the fused form reads B C h w and writes 5 bytes per pixel,
for B C H W exponentials. On the CPU one tile of upsampled logits exists at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._arguments import FLOATS, check_size, check_tensor, outside_autocast, plain_only
from ._bilinear import upsampled_tiles
from .cutmix import check_boxes


@torch.library.custom_op("semiseg::pseudo_label_cpu", mutates_args=(), device_types="cpu")
def _operator(logits: Tensor, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    label, confidence = _empty(logits, height, width)
    for place, values in upsampled_tiles(logits, (height, width), align_corners):
        _classify(values, label[place], confidence[place])
    return label, confidence


@torch.library.custom_op("semiseg::mixed_pseudo_label_cpu", mutates_args=(), device_types="cpu")
def _mixed_operator(
    logits_a: Tensor, logits_b: Tensor, boxes: Tensor, height: int, width: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    label, confidence = _empty(logits_a, height, width)
    mask = reference.box_mask(boxes, (height, width))
    tiles_a = upsampled_tiles(logits_a, (height, width), align_corners)
    tiles_b = upsampled_tiles(logits_b, (height, width), align_corners)
    for (place, values_a), (_, values_b) in zip(tiles_a, tiles_b):
        torch.where(mask[place].reshape(1, -1), values_b, values_a, out=values_a)
        _classify(values_a, label[place], confidence[place])
    return label, confidence


@_operator.register_fake
def _(logits, height, width, align_corners):
    return _empty(logits, height, width)


@_mixed_operator.register_fake
def _(logits_a, logits_b, boxes, height, width, align_corners):
    return _empty(logits_a, height, width)


def _empty(logits: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], height, width)
    return logits.new_empty(shape, dtype=torch.uint8), logits.new_empty(shape, dtype=torch.float32)


def _classify(values: Tensor, label: Tensor, confidence: Tensor) -> None:
    """Write the argmax of (C, pixels) logits and its probability into one tile of the maps; `values` is overwritten."""
    label.copy_(values.max(0).indices.view_as(label))
    confidence.copy_(torch.softmax(values, 0).amax(0).view_as(confidence))


def check_classes(name: str, logits: Tensor) -> None:
    """Raise unless `logits` is a non-empty (B, C, h, w) float tensor whose classes fit a uint8 label."""
    check_tensor(name, logits, (None, None, None, None), FLOATS)
    if not 1 <= logits.shape[1] <= 256 or logits.shape[2] == 0 or logits.shape[3] == 0:
        raise ValueError(f"{name} must have 1 to 256 classes and some pixels, not shape {tuple(logits.shape)}")


@outside_autocast
def pseudo_label(logits: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> tuple[Tensor, Tensor]:
    """Most probable class of bilinearly upsampled logits, with its softmax probability.

    logits: (B, C, h, w) float, C <= 256; not differentiated. size: (H, W).
    Returns label (B, H, W) uint8, the lowest index on ties, and confidence (B, H, W) float32 in [1/C, 1].
    Raises TypeError or ValueError naming the argument.
    """
    check_classes("logits", logits)
    height, width = check_size("size", size)
    logits = logits.detach()
    if plain_only(logits):
        return reference.pseudo_label(logits, (height, width), align_corners=align_corners)
    return _operator(logits, height, width, align_corners)


@outside_autocast
def mixed_pseudo_label(
    logits_a: Tensor, logits_b: Tensor, boxes: Tensor, size: tuple[int, int], *, align_corners: bool = True
) -> tuple[Tensor, Tensor]:
    """Pseudo-label of two upsampled logits mixed as `cutmix` mixes their images: b inside the toggled boxes, else a.

    logits_a, logits_b: (B, C, h, w) float of one dtype, C <= 256; not differentiated.
    boxes: (B, n, 4) int (y0, x0, y1, x1) in pixels of `size` = (H, W), ends exclusive.
    Returns label (B, H, W) uint8, the lowest index on ties, and confidence (B, H, W) float32 in [1/C, 1].
    Raises TypeError or ValueError naming the argument.
    """
    check_classes("logits_a", logits_a)
    check_tensor("logits_b", logits_b, tuple(logits_a.shape), (logits_a.dtype,), logits_a.device)
    check_boxes(boxes, logits_a.shape[0], logits_a.device)
    height, width = check_size("size", size)
    logits_a, logits_b = logits_a.detach(), logits_b.detach()
    if plain_only(logits_a):
        return reference.mixed_pseudo_label(logits_a, logits_b, boxes, (height, width), align_corners=align_corners)
    return _mixed_operator(logits_a, logits_b, boxes, height, width, align_corners)
