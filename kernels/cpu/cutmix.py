"""CutMix on the CPU: whole rectangles are copied.

The edges of n boxes cut an image into at most (2 n + 1)^2 cells, each inside the mask or outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor


def mix(images_a: Tensor, images_b: Tensor, boxes: Tensor, memory_format: torch.memory_format) -> Tensor:
    """`images_b` inside the toggled boxes, `images_a` elsewhere."""
    mixed = images_a.clone(memory_format=memory_format)
    for cell in toggled_cells(boxes, images_a.shape[2:]):
        mixed[cell] = images_b[cell]
    return mixed


def split(images: Tensor, boxes: Tensor, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
    """`images` outside and inside the toggled boxes, each with zeros elsewhere."""
    outside = images.clone(memory_format=memory_format)
    inside = torch.zeros_like(outside)
    for cell in toggled_cells(boxes, images.shape[2:]):
        inside[cell] = images[cell]
        outside[cell] = 0
    return outside, inside


def toggled_cells(boxes: Tensor, size: Sequence[int]) -> Iterator[tuple[int, slice, slice, slice]]:
    """Rectangles that tile the mask of each sample, as indices of (B, C, H, W)."""
    for sample, corners in enumerate(boxes.tolist()):
        ys = sorted({min(max(y, 0), size[0]) for box in corners for y in box[0::2]})
        xs = sorted({min(max(x, 0), size[1]) for box in corners for x in box[1::2]})
        for top, bottom in pairwise(ys):
            for left, right in pairwise(xs):
                covering = sum(y0 <= top < y1 and x0 <= left < x1 for y0, x0, y1, x1 in corners)
                if covering % 2:
                    yield sample, slice(None), slice(top, bottom), slice(left, right)
