"""CutMix: paste boxes of one batch of images into another, by toggling.

The mask M of a sample starts at zero and every box inverts it in turn, so that where two boxes overlap it is zero again
(mask generator of French et al., BMVC 2020, as used by CPS, Chen et al., CVPR 2021):

    M = box_1 xor box_2 xor ... xor box_n,        image = M ? b : a

Minimal traffic is one read and one write, 2 B C H W elements, and no arithmetic. The CPU implementation copies `a` and
then rectangles of `b`: the edges of n boxes cut the image into at most (2 n + 1)^2 cells, each inside M or outside.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from . import reference
from ._arguments import FLOATS, INTEGERS, check_size, check_tensor


def check_boxes(boxes: Tensor, batch: int, device: torch.device) -> None:
    """Raise unless `boxes` are signed integers of shape (batch, n, 4) on `device`."""
    check_tensor("boxes", boxes, (batch, None, 4), INTEGERS[1:], device)


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask toggled by each box in turn.

    boxes: (B, n, 4) int, rows (y0, x0, y1, x1) in pixels, ends exclusive; what lies outside the image has no effect.
    size: (H, W). Returns (B, H, W) bool. Raises TypeError or ValueError naming the argument.
    """
    check_tensor("boxes", boxes, (None, None, 4), INTEGERS[1:])
    return reference.box_mask(boxes, check_size("size", size))


@torch.library.custom_op("semiseg::cutmix_cpu", mutates_args=(), device_types="cpu")
def _operator(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    mixed = images_a.clone()
    height, width = images_a.shape[2:]
    for image, source, corners in zip(mixed, images_b, boxes.tolist()):
        ys = sorted({min(max(y, 0), height) for box in corners for y in box[0::2]})
        xs = sorted({min(max(x, 0), width) for box in corners for x in box[1::2]})
        for top, bottom in pairwise(ys):
            for left, right in pairwise(xs):
                covering = sum(y0 <= top < y1 and x0 <= left < x1 for y0, x0, y1, x1 in corners)
                if covering % 2:
                    image[:, top:bottom, left:right] = source[:, top:bottom, left:right]
    return mixed


@_operator.register_fake
def _(images_a, images_b, boxes):
    return torch.empty_like(images_a)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[2])


def _backward(ctx, upstream):
    (boxes,) = ctx.saved_tensors
    nothing = torch.zeros_like(upstream)
    return _operator(upstream, nothing, boxes), _operator(nothing, upstream, boxes), None


_operator.register_autograd(_backward, setup_context=_setup_context)


def cutmix(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    """`images_b` inside the toggled boxes, `images_a` elsewhere.

    images_a, images_b: (B, C, H, W), one float dtype or uint8; boxes: (B, n, 4) int (y0, x0, y1, x1), ends exclusive.
    Returns images in the memory format of `images_a`; gradients flow to both.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("images_a", images_a, (None, None, None, None), (*FLOATS, torch.uint8))
    check_tensor("images_b", images_b, tuple(images_a.shape), (images_a.dtype,), images_a.device)
    check_boxes(boxes, images_a.shape[0], images_a.device)
    if images_a.device.type == "cpu":
        return _operator(images_a, images_b, boxes)
    mixed = reference.cutmix(images_a, images_b, boxes)
    channels_last = images_a.is_contiguous(memory_format=torch.channels_last) and not images_a.is_contiguous()
    return mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
