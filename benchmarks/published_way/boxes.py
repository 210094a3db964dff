"""CutMix boxes as the published programs draw them, as masks: 1 where another image is shown."""

from __future__ import annotations

import random

import numpy as np

NO_BOX, AREA, RATIO = 0.5, (0.02, 0.4), (0.3, 1 / 0.3)
"""Of UniMatch's boxes: the probability of none (U2PL's, too), shares of the window, height over width."""


def no_box(crop: int) -> np.ndarray:
    return np.zeros((crop, crop), np.float32)


def half_box(crop: int) -> np.ndarray:
    """Half of the window (CutMix-Seg)."""
    return box_masks(1, (crop, crop), boxes=1, area=(0.5, 0.5))[0, 0]


def tried_box(crop: int) -> np.ndarray:
    """None, or ratio and corner anew until the box lies inside (UniMatch)."""
    mask = no_box(crop)
    if random.random() < NO_BOX:
        return mask
    area = random.uniform(*AREA) * crop**2
    while True:
        ratio = random.uniform(*RATIO)
        height, width = int((area * ratio) ** 0.5), int((area / ratio) ** 0.5)
        top, left = random.randrange(crop), random.randrange(crop)
        if top + height <= crop and left + width <= crop:
            mask[top : top + height, left : left + width] = 1
            return mask


def half_or_no_box(crop: int) -> np.ndarray:
    """None, or half of the window, more than half as wide (U2PL, which draws once a batch whether there are boxes)."""
    mask = no_box(crop)
    if random.random() < NO_BOX:
        return mask
    width = random.randrange(crop // 2 + 1, crop)
    height = round(crop**2 / 2 / width)
    top, left = random.randint(0, crop - height), random.randint(0, crop - width)
    mask[top : top + height, left : left + width] = 1
    return mask


def box_masks(count: int, size: tuple[int, int], boxes: int = 3, area: tuple[float, float] = (0.25, 0.5)) -> np.ndarray:
    """(count, 1, H, W): 1 where an odd number of boxes lies, which share as much of the area as is drawn from `area`
    (CutMix-CPS)."""
    draw = np.random.default_rng()
    masks = np.zeros((count, 1, *size), np.float32)
    for mask in masks:
        for share in draw.uniform(*area, boxes):
            height = np.exp(draw.uniform() * np.log(share))
            sides = np.round(np.array([height, share / height]) * np.sqrt(1 / boxes) * size).astype(int)
            top, left = np.round((np.array(size) - sides) * draw.uniform(size=2)).astype(int)
            window = mask[0, top : top + sides[0], left : left + sides[1]]
            np.subtract(1, window, out=window)
    return masks
