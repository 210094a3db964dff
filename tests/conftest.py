"""Builders of tiny data sets in the layouts that the library reads, as fixtures: each call makes one tree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product on a GPU
torch.set_num_threads(1)  # tests are small; threads that wait for each other on a busy machine are slow

# The same examples in every run, however long they take; fixtures are shared by the examples of a test.
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=SUPPRESSED)
settings.load_profile("suite")

VOC_COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a smooth ramp with noise, so that JPEG neither flattens nor mangles it."""
    rng = np.random.default_rng(seed)
    ramp = (
        np.linspace(40, 200, width)[None, :, None] * np.array([1.0, 0.8, 0.6]) + np.arange(height)[:, None, None] % 40
    )
    return np.clip(ramp + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def labels(seed: int, height: int, width: int, values: Iterable[int]) -> np.ndarray:
    """(H, W) uint8: a grid of blocks, each of one of the values, all of which occur."""
    values = np.asarray(list(values), np.uint8)
    rows, columns = 3, max(3, -(-len(values) // 3))
    blocks = np.random.default_rng(seed).permutation(np.resize(values, rows * columns)).reshape(rows, columns)
    return blocks[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def save_image(path: Path, seed: int, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, height, width)).save(path)


def save_mask(path: Path, mask: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette:
        image.putpalette(VOC_COLOURS)
    image.save(path)


def write_list(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, also for commands that it starts."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def voc_root(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """`voc_root(train=6, val=3, ...)` builds VOC and returns VOC2012 (at `level` below the test's folder).

    Ids are 2007_000001, ...; the last `val` ones are for validation. Masks are palette PNGs of classes 0 to 3 and 255.
    """

    def build(
        train: int = 6, val: int = 3, height: int = 40, width: int = 56, level: str = "voc/VOCdevkit/VOC2012"
    ) -> Path:
        home = tmp_path / level
        ids = [f"2007_{number:06d}" for number in range(1, train + val + 1)]
        for seed, id in enumerate(ids):
            save_image(home / "JPEGImages" / f"{id}.jpg", seed, height, width)
            mask = labels(seed, height, width, (0, 0, 1, 2, 3, 255))
            save_mask(home / "SegmentationClass" / f"{id}.png", mask, palette=True)
        write_list(home / "ImageSets/Segmentation/train.txt", ids[:train])
        write_list(home / "ImageSets/Segmentation/val.txt", ids[train:])
        return home

    return build


@pytest.fixture
def cityscapes_root(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """`cityscapes_root(kind="labelIds" or "labelTrainIds", ...)` builds Cityscapes and returns its root.

    Two cities are for training, one is for validation. Ids are aachen_000000_000019, bremen_..., frankfurt_....
    """

    def build(
        kind: str = "labelIds",
        train: int = 4,
        val: int = 2,
        height: int = 32,
        width: int = 64,
        root: str = "cityscapes",
    ) -> Path:
        home = tmp_path / root
        values = (0, 4, 7, 8, 11, 23, 26, 33) if kind == "labelIds" else (255, 0, 1, 2, 10, 13, 18)
        places = [("train", ("aachen", "bremen")[number % 2], number) for number in range(train)]
        places += [("val", "frankfurt", number) for number in range(val)]
        for seed, (part, city, number) in enumerate(places):
            id = f"{city}_{number:06d}_000019"
            save_image(home / "leftImg8bit" / part / city / f"{id}_leftImg8bit.png", seed, height, width)
            mask = labels(seed, height, width, values)
            save_mask(home / "gtFine" / part / city / f"{id}_gtFine_{kind}.png", mask)
        return home

    return build


@pytest.fixture
def ade20k_root(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """`ade20k_root(train=4, val=2, ...)` builds ADE20K and returns ADEChallengeData2016.

    Masks hold 0, 1, 2, 13 and 150.
    """

    def build(train: int = 4, val: int = 2, height: int = 32, width: int = 48) -> Path:
        home = tmp_path / "ade/ADEChallengeData2016"
        places = [("training", f"ADE_train_{number:08d}") for number in range(1, train + 1)]
        places += [("validation", f"ADE_val_{number:08d}") for number in range(1, val + 1)]
        for seed, (part, id) in enumerate(places):
            save_image(home / "images" / part / f"{id}.jpg", seed, height, width)
            save_mask(home / "annotations" / part / f"{id}.png", labels(seed, height, width, (0, 1, 2, 13, 150)))
        write_list(home / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tStuff\tName"])
        return home

    return build


@pytest.fixture
def coco_root(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """`coco_root(train=3, val=2, ...)` builds COCO 2017 and returns its root. Masks hold 0, 1, 80 and 255. Ids are
    000000000001, ..., those for validation follow."""

    def build(train: int = 3, val: int = 2, height: int = 32, width: int = 48) -> Path:
        home = tmp_path / "COCO"
        for seed in range(train + val):
            part, id = "train2017" if seed < train else "val2017", f"{seed + 1:012d}"
            save_image(home / part / f"{id}.jpg", seed, height, width)
            save_mask(home / "masks" / f"{id}.png", labels(seed, height, width, (0, 1, 80, 255)))
        return home

    return build


@pytest.fixture
def folder_root(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """`folder_root(masked=8, bare=4, val=2, ...)` builds a folder of images a000, a001, ... of three classes: the first
    `masked` have masks, the last `val` of these stand in val.txt (no file for 0)."""

    def build(
        masked: int = 8, bare: int = 4, val: int = 2, height: int = 40, width: int = 48, root: str = "own"
    ) -> Path:
        home = tmp_path / root
        ids = [f"a{number:03d}" for number in range(masked + bare)]
        for seed, id in enumerate(ids):
            save_image(home / "images" / f"{id}.jpg", seed, height, width)
            if seed < masked:
                save_mask(home / "masks" / f"{id}.png", labels(seed, height, width, (0, 1, 2)))
        write_list(home / "classes.txt", ["ground", "car\t#ff8000", "tree"])
        if val:
            write_list(home / "val.txt", ids[masked - val : masked])
        return home

    return build
