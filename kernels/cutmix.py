"""CutMix: paste boxes of one batch of images into another, by toggling.

The mask M of a sample starts at zero and every box inverts it in turn, so that where two boxes overlap it is zero again
(mask generator of French et al., BMVC 2020, as used by CPS, Chen et al., CVPR 2021):

    M = box_1 xor box_2 xor ... xor box_n,        image = M ? b : a

Two images are read and one is written: 3 B C H W elements, and no arithmetic. The mask takes B H W bytes beside them, so
that the plain definition is also the bounded one and serves every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._arguments import FLOATS, INTEGERS, check_size, check_tensor


def check_boxes(boxes: Tensor, batch: int, device: torch.device) -> None:
    """Raise unless `boxes` are integers of shape (batch, n, 4) on `device`."""
    check_tensor("boxes", boxes, (batch, None, 4), INTEGERS[1:], device)


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask toggled by each box in turn.

    boxes: (B, n, 4) int, rows (y0, x0, y1, x1) in pixels with exclusive ends; what lies outside the image has no effect.
    size: (H, W). Returns (B, H, W) bool. Raises TypeError or ValueError naming the argument.
    """
    check_tensor("boxes", boxes, (None, None, 4), INTEGERS[1:])
    return reference.box_mask(boxes, check_size("size", size))


def cutmix(images_a: Tensor, images_b: Tensor, boxes: Tensor) -> Tensor:
    """`images_b` inside the toggled boxes, `images_a` elsewhere.

    images_a, images_b: (B, C, H, W), one float dtype or uint8; boxes: (B, n, 4) int (y0, x0, y1, x1), ends exclusive.
    Returns images in the memory format of `images_a`; gradients flow to both.
    Raises TypeError or ValueError naming the argument.
    """
    check_tensor("images_a", images_a, (None, None, None, None), (*FLOATS, torch.uint8))
    check_tensor("images_b", images_b, tuple(images_a.shape), (images_a.dtype,), images_a.device)
    check_boxes(boxes, images_a.shape[0], images_a.device)
    mixed = reference.cutmix(images_a, images_b, boxes)
    channels_last = images_a.is_contiguous(memory_format=torch.channels_last) and not images_a.is_contiguous()
    return mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
