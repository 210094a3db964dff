"""`shapes`: the embedded data set, drawn once into the cache as JPEG + PNG in VOC layout.

Six kinds of figure stand on cluttered, greyish ground. A class has an outline and a favourite hue, from which its
figures stray (one in twenty lies nearer to another class's); texture, size and rotation are drawn alike for all, and
strokes, some in the figures' colours, distract. Colour is learnt soon, outlines only from many figures, so a few
labels are not enough.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..cache import cache_root
from ..errors import UsageError
from . import voc
from .dataset import IGNORE, Dataset, Layout, voc_colours

CLASSES = ("background", "disk", "rectangle", "triangle", "star", "ring", "cross")
HEIGHT, WIDTH = 96, 128
TRAIN, VAL = 256, 128
VERSION = 1
HUE_SPREAD = 15  # degrees, standard deviation; favourite hues lie 60 degrees apart
SUPERSAMPLING = 2  # outlines are drawn larger and averaged down, so that their edges look like a camera's


def find(root: Path | None = None) -> Dataset:
    """The data set in `root` (default: the cache), drawn there first if nothing is there. Raises UsageError where
    something else is."""
    root = root.expanduser().absolute() if root else cache_root() / f"shapes-{VERSION}"
    if not _is_drawn(root):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UsageError(f"{root} is not the data set shapes: pass an empty folder, or leave out --data")
        write(root)
    return replace(voc.find(root), layout="shapes")


LAYOUT = Layout(find=find, classes=CLASSES, palette=voc_colours(len(CLASSES)), needs_root=False)


def _is_drawn(root: Path) -> bool:
    classes = root / "classes.txt"
    return classes.is_file() and classes.read_text().split() == list(CLASSES)


def write(root: Path) -> None:
    """Draws the whole set into `root`, which appears complete or not at all, and is nothing or an empty folder before.
    Where another process draws it at the same time, the first one's set stays."""
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f"{root.name}-{uuid.uuid4().hex}")
    try:
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (draft / name).mkdir(parents=True)
        ids = [f"{number:06d}" for number in range(TRAIN + VAL)]
        for number, name in enumerate(ids):
            image, mask = draw(number)
            Image.fromarray(image).save(draft / "JPEGImages" / f"{name}.jpg", quality=92)
            Image.fromarray(mask).save(draft / "SegmentationClass" / f"{name}.png")
        lists = draft / "ImageSets/Segmentation"
        (lists / "train.txt").write_text("\n".join(ids[:TRAIN]) + "\n")
        (lists / "val.txt").write_text("\n".join(ids[TRAIN:]) + "\n")
        (draft / "classes.txt").write_text("\n".join(CLASSES) + "\n")
        try:
            os.replace(draft, root)
        except OSError:  # a folder that is not empty
            if not _is_drawn(root):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `number`: image (96, 128, 3) uint8 RGB and mask (96, 128) uint8 of class indices, 255 on the outlines."""
    rng = np.random.Generator(np.random.Philox(key=[number, VERSION]))
    size = np.array([HEIGHT, WIDTH]) * SUPERSAMPLING
    image = texture(rng, size, None, np.s_[:, :])
    for _ in range(rng.integers(2, 6)):
        hue = rng.uniform(0, 360) if rng.random() < 0.3 else None
        paint(rng, image, stroke(rng, size), hue)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(2, 6)):
        label = int(rng.integers(1, len(CLASSES)))
        figure = outline(rng, CLASSES[label], size)
        paint(rng, image, figure, rng.normal(60 * label, HUE_SPREAD))
        share = cv2.resize(figure.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        mask[share > 0.75] = label
        mask[(share > 0.25) & (share <= 0.75)] = IGNORE
    image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    image = image + rng.normal(0, 6, image.shape) + rng.normal(0, 10, 3)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def paint(rng: np.random.Generator, image: np.ndarray, inside: np.ndarray, hue: float | None) -> None:
    """Draws a texture into `image`, (H, W, 3) float32, where `inside`, (H, W) bool, is true; it is computed in the box
    around that alone."""
    left, top, width, height = cv2.boundingRect(inside.view(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    image[box] = np.where(inside[box][..., None], texture(rng, inside.shape, hue, box), image[box])


def texture(
    rng: np.random.Generator, size: Sequence[int] | np.ndarray, hue: float | None, box: tuple[slice, slice]
) -> np.ndarray:
    """Two colours blended by one of four patterns, (H, W, 3) float32, of which `box` is cut out; greyish where there is
    no hue."""
    one, two = colour(rng, hue), colour(rng, hue)
    two = one + (two - one) * np.float32(rng.uniform(0.1, 0.7))
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 24) * SUPERSAMPLING
    y = np.arange(size[0], dtype=np.float32)[box[0], None]
    x = np.arange(size[1], dtype=np.float32)[box[1]]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:  # gradient
        blend = along / size[1] + rng.uniform(-0.5, 0.5)
    elif kind == 1:  # stripes
        blend = np.sin(2 * np.pi * along / period) * 2 + 0.5
    elif kind == 2:  # checks
        blend = np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period) * 4 + 0.5
    else:  # clouds
        coarse = rng.uniform(-0.3, 1.3, (6, 8)).astype(np.float32)
        blend = cv2.resize(coarse, (int(size[1]), int(size[0])), interpolation=cv2.INTER_CUBIC)[box]
    return one + (two - one) * np.clip(blend, 0, 1)[..., None].astype(np.float32)


def colour(rng: np.random.Generator, hue: float | None) -> np.ndarray:
    """(3,) float32 RGB in 0..255: saturated of a hue in degrees, or close to grey."""
    if hue is None:
        return (rng.uniform(40, 215) + rng.uniform(-25, 25, 3)).astype(np.float32)
    pixel = np.array([[[hue % 360, rng.uniform(0.55, 1), rng.uniform(0.5, 1)]]], np.float32)
    return 255 * cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]


def stroke(rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
    """A bent line or an open blob that is no figure, (H, W) bool."""
    canvas = np.zeros(size, np.uint8)
    points = rng.uniform(-0.1, 1.1, (4, 1, 2)) * size[::-1]
    t = np.linspace(0, 1, 24)[:, None, None]
    curve = sum(w * p for w, p in zip(((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3), points))
    cv2.polylines(canvas, [np.rint(curve).astype(np.int32)], False, 1, int(rng.uniform(2, 9) * SUPERSAMPLING))
    return canvas.astype(bool)


def outline(rng: np.random.Generator, kind: str, size: np.ndarray) -> np.ndarray:
    """A figure of the class `kind` at a random place, size, rotation and mild squeeze, (H, W) bool."""
    radius = rng.uniform(13, 30) * SUPERSAMPLING
    centre = rng.uniform(0.1, 0.9, 2) * size[::-1]
    angle, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def polygon(points: np.ndarray) -> np.ndarray:
        return np.rint((points * [1, squeeze]) @ turn.T * radius + centre).astype(np.int32)

    def corners(count: int, *radii: float) -> np.ndarray:
        around = 2 * np.pi * np.arange(count) / count
        return np.stack([np.cos(around), np.sin(around)], 1) * np.resize(radii, count)[:, None]

    canvas = np.zeros(size, np.uint8)
    if kind == "disk":
        cv2.fillPoly(canvas, [polygon(corners(48, 1.0))], 1)
    elif kind == "rectangle":
        half = rng.uniform(0.55, 0.9)
        cv2.fillPoly(canvas, [polygon(np.array([[-1, -half], [1, -half], [1, half], [-1, half]]) * 0.85)], 1)
    elif kind == "triangle":
        cv2.fillPoly(canvas, [polygon(corners(3, 1.25))], 1)
    elif kind == "star":
        cv2.fillPoly(canvas, [polygon(corners(10, 1.2, 0.65))], 1)
    elif kind == "ring":
        cv2.fillPoly(canvas, [polygon(corners(48, 1.0))], 1)
        cv2.fillPoly(canvas, [polygon(corners(48, rng.uniform(0.35, 0.5)))], 0)
    elif kind == "cross":
        arm = rng.uniform(0.32, 0.45)
        bar = np.array([[-1, -arm], [1, -arm], [1, arm], [-1, arm]])
        cv2.fillPoly(canvas, [polygon(bar)], 1)
        cv2.fillPoly(canvas, [polygon(bar[:, ::-1])], 1)
    else:
        raise ValueError(f"kind: no figure is called {kind!r}; known: {', '.join(CLASSES[1:])}")
    return canvas.astype(bool)
