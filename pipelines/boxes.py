"""CutMix boxes: y0, x0, y1, x1 in pixels of the window."""

from __future__ import annotations

import numpy as np

from .draws import Draws, uniform_int

NO_BOX = 0.5  # probability
AREA = (0.02, 0.4)
RATIO = (0.3, 1 / 0.3)
RATIOS = 256  # among which one is chosen
MIXED_AREA = (0.25, 0.5)
PER_MIXING_BOX = 4  # random numbers: area, height, corner
PER_STRONG_BOX = 6  # random numbers at most: box or none, area, ratios, the one, corner


def mixing_boxes(draws: Draws, count: int, crop: int, area: tuple[float, float] = MIXED_AREA) -> np.ndarray:
    """(B, count, 4) int32: boxes that cover a share of the window between those of `area` in all, by default as in
    CutMix-CPS (prop_range, n_boxes = 3); PER_MIXING_BOX numbers are drawn for each."""
    share = area[0] + (area[1] - area[0]) * draws.take(count).reshape(-1, count)
    height = share ** draws.take(count).reshape(-1, count)
    size = np.rint(np.stack([height, share / height], -1) * np.sqrt(1 / count) * crop)
    corner = np.rint((crop - size) * draws.take(2 * count).reshape(-1, count, 2))
    return np.concatenate([corner, corner + size], -1).astype(np.int32)


def half_boxes(draws: Draws, crop: int) -> np.ndarray:
    """(B, 4) int32: a box of half the window (CutMix-Seg: mask_prop_range = 0.5, one box); PER_MIXING_BOX numbers are
    drawn."""
    return mixing_boxes(draws, 1, crop, (0.5, 0.5))[:, 0]


def sometimes_boxes(draws: Draws, crop: int) -> np.ndarray:
    """(B, 4) int32: a box or, half of the time, none, which is all zeros (UniMatch); PER_STRONG_BOX numbers are drawn.

    The published sampler draws the box's area once, then ratio and corner until the box lies inside. So the ratio has
    its uniform law times the share of corners at which the box would fit: here one of RATIOS equally spaced ratios,
    from a drawn first one on, is chosen by that share. No box takes more than one try.
    """
    none, area = draws.take() < NO_BOX, (AREA[0] + (AREA[1] - AREA[0]) * draws.take()) * crop**2
    spaced = (np.arange(RATIOS) + draws.take()[:, None]) / RATIOS
    ratio = RATIO[0] + (RATIO[1] - RATIO[0]) * spaced
    size = np.sqrt(area[:, None, None] * np.stack([ratio, 1 / ratio], -1)).astype(np.int64)
    places = np.clip(crop - size + 1, 0, crop)
    chance = places.prod(-1).cumsum(1)
    chosen = (chance <= (draws.take() * chance[:, -1])[:, None]).sum(1)[:, None, None]
    size, places = (np.take_along_axis(values, chosen, 1)[:, 0] for values in (size, places))
    corner = uniform_int(draws.take(2), np.zeros_like(places), places - 1)
    return np.where(none[:, None], 0, np.concatenate([corner, corner + size], -1)).astype(np.int32)


def sometimes_half_boxes(draws: Draws, crop: int) -> np.ndarray:
    """(B, 4) int32: a box of half the window or, half of the time, none, which is all zeros (U2PL); four numbers are
    drawn. The width is any whole number above half the side and below all of it, and the height follows."""
    none, width = draws.take() < NO_BOX, uniform_int(draws.take(), crop // 2 + 1, crop - 1)
    size = np.stack([np.rint(crop**2 / 2 / width).astype(np.int64), width], -1)
    corner = uniform_int(draws.take(2), np.zeros_like(size), crop - size)
    return np.where(none[:, None], 0, np.concatenate([corner, corner + size], -1)).astype(np.int32)


STRONG_BOXES = {"sometimes": sometimes_boxes, "sometimes_half": sometimes_half_boxes, "always": half_boxes}
"""By `views.ViewSpec.cutmix`, what draws the boxes of one strong view."""
