"""What a step trains on: windows as backends cut them, and batches as methods take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .plan import Plan


@dataclass(frozen=True, slots=True)
class Windows:
    """What a backend makes of a plan. The tensors are valid until the next but one is asked for."""

    labeled: torch.Tensor
    """(B, S, S, 3) uint8 RGB."""
    target: torch.Tensor
    """(B, S, S) uint8, 255 ignored."""
    unlabeled: tuple[torch.Tensor, ...]
    """One (B, S, S, 3) uint8 tensor a view: none, one (plain) or two (pair: one stream, mixed: two)."""


Backend = Callable[[int], Iterator[tuple[Plan, Windows]]]


@dataclass(frozen=True, slots=True)
class Labeled:
    image: Tensor
    """(B, 3, S, S) float, normalised, channels-last."""
    target: Tensor
    """(B, S, S) uint8, 255 ignored."""


@dataclass(frozen=True, slots=True)
class Unlabeled:
    """`image` for plain views; `image` and `image2` for a pair or for the two streams that CutMix mixes."""

    image: Tensor
    image2: Tensor | None = None
    corner1: Tensor | None = None
    """(B, 2) int32: row and column of a pair's overlap in `image` before its flip, pixels."""
    corner2: Tensor | None = None
    """The same in `image2`."""
    extent: Tensor | None = None
    """(B, 2) int32: rows and columns of the overlap."""
    flip1: Tensor | None = None
    """(B,) bool: `image` was flipped horizontally."""
    flip2: Tensor | None = None
    boxes: Tensor | None = None
    """(B, n, 4) int32: y0, x0, y1, x1 of the boxes that take `image2`."""


@dataclass(frozen=True, slots=True)
class Batch:
    labeled: Labeled
    unlabeled: Unlabeled | None = None
