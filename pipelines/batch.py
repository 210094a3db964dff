"""What a step trains on: windows as backends cut them, and batches as methods take them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from .datasets.dataset import IGNORE as IGNORE  # for methods, which know batches and no data sets
from .plan import Plan

HELD = 2
"""Windows of as many plans are valid at a time."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What a backend makes of a plan. The tensors are valid until the next but one is asked for; those in pinned memory
    are to be read by then."""

    labeled: Tensor
    """(B, S, S, 3) uint8 RGB."""
    target: Tensor
    """(B, S, S) uint8, 255 ignored."""
    unlabeled: tuple[Tensor, ...]
    """One (B, S, S, 3) uint8 tensor a view, stream by stream."""


Backend = Callable[[Iterator[Plan]], Generator[tuple[Plan, Windows], None, None]]
"""Executes plans, of which there is no end and which are alike in shape, in their order, and works ahead of its
reader."""


@dataclass(frozen=True, slots=True)
class Labeled:
    image: Tensor
    """(B, 3, S, S) float, normalised, as are all images."""
    target: Tensor
    """(B, S, S) uint8, 255 ignored."""


@dataclass(frozen=True, slots=True)
class Plain:
    """One window of each unlabelled image."""

    image: Tensor
    """(B, 3, S, S)"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two windows of each image, which overlap. Corners and extent: (B, 2) int32 rows and columns, pixels of the
    windows before their flips."""

    image1: Tensor
    """(B, 3, S, S)"""
    image2: Tensor
    """(B, 3, S, S)"""
    corner1: Tensor
    """(B, 2) int32: row and column of the overlap in `image1`."""
    corner2: Tensor
    """(B, 2) int32: row and column of the overlap in `image2`."""
    extent: Tensor
    """(B, 2) int32: rows and columns of the overlap; 0 where there is none."""
    flip1: Tensor
    """(B,) bool: `image1` was flipped horizontally."""
    flip2: Tensor
    """(B,) bool."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Windows of two images, to be mixed."""

    image1: Tensor
    """(B, 3, S, S)"""
    image2: Tensor
    """(B, 3, S, S)"""
    boxes: Tensor
    """(B, n, 4) int32: y0, x0, y1, x1 of the boxes that show `image2`."""


@dataclass(frozen=True, slots=True)
class WeakStrong:
    """One window of each image in a weak and several strong colourings, to be mixed with a partner's. Of the N windows
    the first B are trained on; the others, if there are any, are windows that serve as partners alone."""

    weak: Tensor
    """(N, 3, S, S)"""
    strong: tuple[Tensor, ...]
    """k tensors (N, 3, S, S), not mixed yet."""
    boxes: Tensor
    """(k, B, 1, 4) int32: y0, x0, y1, x1 of the box that shows the partner in each strong view; empty where none."""
    partner: Tensor
    """(B,) int64: the window that each image is mixed with, as an index into the N; into those of all processes, the
    first one's first, where several share the batch and its means."""
    valid: Tensor
    """(N, 4) int32: y0, x0, y1, x1 of the part of each window that shows its image; the rest is padding."""

    def trained_on(self, of_windows: Tensor) -> Tensor:
        """Of what all windows have (N, …) that of the windows that are trained on (B, …)."""
        return of_windows[: len(self.partner)]


Unlabeled = TypeVar("Unlabeled", bound=Plain | Pair | Mixed | WeakStrong | None)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Unlabeled]):
    """On the training device. A method says which unlabelled part it takes: `Batch[Pair]`."""

    labeled: Labeled
    unlabeled: Unlabeled = None  # type: ignore[assignment]
    more: tuple[Batch[Unlabeled], ...] = ()
    """The step's other micro-batches, where its gradient is accumulated over several; these have none."""

    @property
    def micro_batches(self) -> tuple[Batch[Unlabeled], ...]:
        """All of the step's."""
        return (self, *self.more)
