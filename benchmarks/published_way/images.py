"""Images as the published programs read them: whole ones, resized with Pillow in the workers of a DataLoader.

(CutMix-Seg's program resizes the window alone.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import ColorJitter, Compose, Normalize, RandomApply, RandomGrayscale, ToTensor

from semiseg.pipelines.datasets.dataset import IGNORE
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.decode import UPRIGHT
from semiseg.pipelines.views import Augmentation, ViewSpec
from semiseg.pipelines.watch import Mark

from .boxes import half_box, half_or_no_box, no_box, tried_box

MEAN, STD, FILL, BLACK = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (124, 116, 104), (0, 0, 0)
STRIDE, TRIES = 8, 50
BOXES = {"never": no_box, "sometimes": tried_box, "sometimes_half": half_or_no_box, "always": half_box}
"""By `ViewSpec.cutmix`, what draws the box of a strong view."""


class Images(Dataset):
    """Scale, pad, crop and flip: whole images, Pillow's bicubic or bilinear, and nearest."""

    def __init__(self, records: Sequence[Record], augmentation: Augmentation, crop: int, views: ViewSpec | None = None):
        self.records, self.augmentation, self.crop, self.views = records, augmentation, crop, views or ViewSpec()
        self.filter = Image.Resampling.BICUBIC if augmentation.filter == "cubic" else Image.Resampling.BILINEAR
        self.fill = BLACK if augmentation.fill == "black" else FILL
        strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
        jitter = RandomApply([ColorJitter(*strengths)], augmentation.jitter)
        self.colours = Compose([jitter, RandomGrayscale(augmentation.gray)])
        self.normalise = Compose([ToTensor(), Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.records)

    def size(self, image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        if self.augmentation.scale == "factors":
            factor = random.choice(self.augmentation.factors) * self.crop / (self.augmentation.native_crop or self.crop)
        else:
            base = max(width, height) if self.augmentation.scale == "own" else self.augmentation.base * self.crop
            low, high = self.augmentation.range
            if self.augmentation.even_odds:
                low, high = random.choice([(low, 1), (1, high)])
            factor = random.randint(int(low * base), int(high * base)) / max(width, height)
        return max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)

    def pad(self, image: Image.Image | np.ndarray, fill) -> np.ndarray:
        image = np.asarray(image)
        bottom, right = (max(self.crop - side, 0) for side in image.shape[:2])
        return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=fill)

    def resized(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The padded image, and the size that it was resized to (width, height)."""
        record = self.records[index]
        image = opened(record.image, record.image_mark).convert("RGB")
        size = self.size(image)
        return self.pad(image.resize(size, self.filter), self.fill), size

    def corner(self, image: np.ndarray) -> tuple[int, int]:
        return random.randint(0, image.shape[0] - self.crop), random.randint(0, image.shape[1] - self.crop)

    def cut(self, image: np.ndarray, corner: tuple[int, int], flip: bool) -> np.ndarray:
        y, x = corner
        window = image[y : y + self.crop, x : x + self.crop]
        return np.ascontiguousarray(window[:, ::-1] if flip else window)

    def __getitem__(self, index: int) -> Tensor:
        image, _ = self.resized(index)
        return self.normalise(self.cut(image, self.corner(image), random.random() < self.augmentation.flip))


def opened(path: Path, mark: Mark | None) -> Image.Image:
    """A picture or a mask as it is seen."""
    image = Image.open(path)
    return ImageOps.exif_transpose(image) if mark and mark.orientation != UPRIGHT else image


class LabeledImages(Images):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, size = self.resized(index)
        record = self.records[index]
        label = opened(record.mask, record.mask_mark).resize(size, Image.Resampling.NEAREST)
        label = self.pad(label, IGNORE)
        corner, flip = self.corner(image), random.random() < self.augmentation.flip
        label = torch.from_numpy(self.cut(label, corner, flip).astype(np.int64))
        return self.normalise(self.cut(image, corner, flip)), label


class Pairs(Images):
    """Two windows that overlap, with colours of their own: images (2, 3, S, S), upper left and lower right corner of
    the overlap in each, (2, 2) rows and columns, and flips (2,)."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, (width, height) = self.resized(index)
        first, second = self.corners(image)
        offset = np.subtract(second, first)
        inside = [height // STRIDE * STRIDE, width // STRIDE * STRIDE]
        low = np.stack([np.maximum(0, offset), np.maximum(0, -offset)])
        high = np.minimum(np.stack([self.crop + np.minimum(0, offset), self.crop + np.minimum(0, -offset)]), inside)
        flips = [random.random() < self.augmentation.flip for _ in range(2)]
        views = [self.view(self.cut(image, corner, flip)) for corner, flip in zip((first, second), flips)]
        return torch.stack(views), torch.from_numpy(low), torch.from_numpy(high), torch.tensor(flips)

    def corners(self, image: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        first = self.corner(image)
        for _ in range(TRIES):
            offset = [b - a for a, b in zip(first, self.corner(image))]
            second = tuple(a + d // STRIDE * STRIDE for a, d in zip(first, offset))
            second = tuple(place + STRIDE if place < 0 else place for place in second)
            shared = [self.crop - abs(b - a) for a, b in zip(first, second)]
            area = shared[0] * shared[1] if min(shared) > 0 else 0
            if area / (2 * self.crop**2 - area) >= 0.1:
                return first, second
        return first, first

    def view(self, window: np.ndarray) -> Tensor:
        if random.random() < self.augmentation.blur:
            window = cv2.GaussianBlur(window, (5, 5), 0)
        return self.normalise(self.colours(Image.fromarray(window)))


class WeakStrong(Images):
    """A window as it is and in k strong colourings: images (3, S, S) and (k, 3, S, S), the pixels (S, S) that show an
    image and not padding, and the box (S, S) of each strong view that is to show a partner's, (k, S, S) of 0 and 1."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, (width, height) = self.resized(index)
        corner, flip = self.corner(image), random.random() < self.augmentation.flip
        window = Image.fromarray(self.cut(image, corner, flip))
        shown = self.cut(self.pad(np.ones((height, width), np.uint8), 0), corner, flip)
        strong = [self.normalise(self.coloured(window)) for _ in range(self.views.strong)]
        boxes = np.stack([BOXES[self.views.cutmix](self.crop) for _ in strong])
        return self.normalise(window), torch.stack(strong), torch.from_numpy(shown).bool(), torch.from_numpy(boxes)

    def coloured(self, window: Image.Image) -> Image.Image:
        window = self.colours(window)
        if random.random() < self.augmentation.blur:
            window = window.filter(ImageFilter.GaussianBlur(random.uniform(*self.augmentation.sigma)))
        return window


def loader(dataset: Images, batch: int, workers: int) -> Iterator:
    """Endless batches in random order."""
    endless = RandomSampler(dataset, replacement=True, num_samples=1 << 40)
    return iter(DataLoader(dataset, batch, sampler=endless, num_workers=workers))
