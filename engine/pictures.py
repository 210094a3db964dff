"""Class indices as colours, overlays and side-by-side pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..pipelines.datasets.dataset import IGNORE

VOID = (224, 224, 224)  # the colour of pixels that do not count


def coloured(mask: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """(H, W) uint8 class indices -> (H, W, 3) uint8 colours."""
    colours = np.full((256, 3), VOID, np.uint8)
    colours[: len(palette)] = palette
    return colours[mask]


def overlay(image: np.ndarray, mask: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The image half covered by its classes' colours; class 0 and void leave it as it is. (H, W, 3) uint8."""
    blended = (image.astype(np.uint16) + coloured(mask, palette)) // 2
    covered = (mask != 0) & (mask != IGNORE)
    return np.where(covered[..., None], blended, image).astype(np.uint8)
