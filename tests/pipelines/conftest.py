"""Photograph-like files and planners over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.plan import Planner
from semiseg.pipelines.views import Augmentation, ViewSpec

CROP = 128
SIZES = (
    (375, 500),
    (500, 333),
    (101, 83),
    (257, 301),
    (64, 200),
    (199, 127),
)  # larger and smaller than a crop, odd sides


@dataclass(frozen=True)
class Photos:
    images: list[Path]
    masks: list[Path]
    sizes: np.ndarray

    def planner(self, unlabeled: str = "pair", filter: str = "cubic", **changes) -> Planner:
        views = dict(crop=CROP, batch=2, unlabeled_batch=2, seed=0)
        views |= dict(
            labeled_augmentation=Augmentation(filter=filter),
            unlabeled_augmentation=Augmentation(filter=filter, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5),
        )
        everything = range(len(self.sizes))
        return Planner(
            self.sizes,
            everything,
            everything,
            ViewSpec(unlabeled=unlabeled),
            **{**views, **changes},
        )


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """JPEGs with chroma at half the resolution: smooth noise, edges and grain; masks of nine regions, and 255."""
    folder = tmp_path_factory.mktemp("photos")
    images, masks = [], []
    for number, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(number)
        coarse = rng.uniform(0, 255, (height // 40 + 2, width // 40 + 2, 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        regions = cv2.resize(coarse[..., 0], (width, height), interpolation=cv2.INTER_LINEAR) // 28
        grain = rng.normal(0, 3, (height, width, 1))
        photo = np.clip(0.5 * smooth + 12 * regions[..., None] + grain, 0, 255).astype(np.uint8)
        mask = regions.astype(np.uint8)
        mask[mask == 5] = 255
        images.append(folder / f"{number}.jpg")
        masks.append(folder / f"{number}.png")
        Image.fromarray(photo).save(images[-1], quality=92, subsampling="4:2:0")
        Image.fromarray(mask).save(masks[-1])
    return Photos(images, masks, np.array(SIZES))


def arrays(plan: object) -> Iterator[np.ndarray]:
    """All arrays of a plan or a part of it, in order."""
    if isinstance(plan, np.ndarray):
        yield plan
    elif isinstance(plan, tuple):
        for part in plan:
            yield from arrays(part)
    elif is_dataclass(plan):
        for field in fields(plan):
            yield from arrays(getattr(plan, field.name))


@pytest.fixture(name="arrays", scope="session")
def _arrays():
    return arrays
