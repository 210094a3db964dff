"""CutMix: paste boxes of one batch of images into another, by toggling.

The mask M of a sample starts at zero and every box inverts it in turn, so that where two boxes overlap it is zero again
(mask generator of French et al., BMVC 2020, as used by CPS, Chen et al., CVPR 2021):

    M = box_1 xor box_2 xor ... xor box_n,        image = M ? b : a
    gradient of a = M ? 0 : g,                    gradient of b = M ? g : 0

With e bytes an element, one read and one write are needed, 2 e B C H W bytes, and no arithmetic; making a mask and
selecting by it reads both images, 3 e B C H W bytes and about (2 n + 1) B H W of masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _dispatch, reference
from ._arguments import FLOATS, INTEGERS, check_size, check_tensor, memory_format
from ._derivatives import keep, without_tangent
from .cpu import cutmix as cpu
from .gpu import cutmix as gpu


@torch.library.custom_op("semiseg::cutmix", mutates_args=())
def _operator(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    implementation = gpu if _dispatch.provider_of(images_a) == "triton" else cpu
    return implementation.mix(images_a, images_b, boxes, memory_format(images_a))


@_operator.register_fake
def _(images_a, images_b, boxes):
    return torch.empty_like(images_a, memory_format=memory_format(images_a))


@torch.library.custom_op("semiseg::cutmix_backward", mutates_args=())
def _backward_operator(gradient: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    implementation = gpu if _dispatch.provider_of(gradient) == "triton" else cpu
    return implementation.split(gradient, boxes, memory_format(gradient))


@_backward_operator.register_fake
def _(gradient, boxes):
    order = memory_format(gradient)
    return torch.empty_like(gradient, memory_format=order), torch.empty_like(gradient, memory_format=order)


def _setup_context(ctx, inputs, output):
    keep(ctx, inputs[2])


def _backward(ctx, gradient):
    without_tangent("cutmix", gradient)
    (boxes,) = ctx.saved_tensors
    return *_backward_operator(gradient, boxes), None


_operator.register_autograd(_backward, setup_context=_setup_context)


def _setup_twice(ctx, inputs, output):
    keep(ctx, inputs[1])


def _backward_twice(ctx, outside, inside):
    without_tangent("cutmix", outside, inside)
    (boxes,) = ctx.saved_tensors
    return _operator(outside, inside, boxes), None


# Mixing and splitting are each other's transpose.
_backward_operator.register_autograd(_backward_twice, setup_context=_setup_twice)


def check_boxes(boxes: Tensor, batch: int, device: torch.device) -> None:
    """Raise unless `boxes` are signed integers of shape (batch, n, 4) on `device`."""
    check_tensor("boxes", boxes, (batch, None, 4), INTEGERS[1:], device)


def box_mask(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Mask toggled by each box in turn.

    boxes: (B, n, 4) signed int, rows (y0, x0, y1, x1) in pixels, ends exclusive; what lies outside the image has no
    effect.
    size: (H, W). Returns (B, H, W) bool. Raises TypeError or ValueError naming the argument.
    """
    check_tensor("boxes", boxes, (None, None, 4), INTEGERS[1:])
    return reference.box_mask(boxes, check_size(size))


def cutmix(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    """`images_b` inside the toggled boxes, `images_a` elsewhere.

    images_a, images_b: (B, C, H, W), one float dtype or uint8; boxes: (B, n, 4) signed int (y0, x0, y1, x1), ends
    exclusive.
    Returns images in the memory format of `images_a`; gradients flow to both.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("images_a", images_a, (None, None, None, None), (*FLOATS, torch.uint8))
    check_tensor("images_b", images_b, tuple(images_a.shape), (images_a.dtype,), images_a.device)
    check_boxes(boxes, images_a.shape[0], images_a.device)
    if _dispatch.provider_of(images_a, "cutmix") == "plain":
        return reference.cutmix(images_a, images_b, boxes).contiguous(memory_format=memory_format(images_a))
    return _operator(images_a, images_b, boxes)
