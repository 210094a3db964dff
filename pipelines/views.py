"""What a method asks of the pipeline: which views, how they are cut, and how their colours may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)  # the mean colour in grey levels: what lies outside an image

Unlabeled = Literal["none", "plain", "pair", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """The views that a method trains on, besides one window of each labelled image."""

    unlabeled: Unlabeled = "none"
    """plain: one window an image; pair: two overlapping windows of it (CAC); mixed: windows of two images and boxes."""
    grid: int = 8
    """Pixels: offset and extent of a pair's overlap are multiples of it."""
    boxes: int = 3
    """Boxes a mixed image."""


@dataclass(kw_only=True, slots=True)
class Augmentation:
    """How a window is cut from an image and how its colours change."""

    scale: Literal["long_side", "factors"] = "long_side"
    """long_side: the long side is drawn from `range` times `base` (CAC); factors: one of `factors` scales (CPS)."""
    base: float = 1.25
    """The long side that counts as scale 1, in sides of the crop (CAC's VOC: 400 / 320)."""
    range: tuple[float, float] = (0.5, 2.0)
    """Bounds of the long side, in units of `base`."""
    factors: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
    """The scale factors, drawn with equal probability."""
    native_crop: int | None = None
    """The crop that the factors are meant for; with another one they change in proportion (none: never)."""
    filter: Literal["cubic", "linear"] = "cubic"
    """cubic: bicubic with antialiasing (Pillow's); linear: bilinear without (OpenCV's)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.0
    """Probability that brightness, contrast, saturation and hue change."""
    brightness: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    contrast: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    saturation: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    hue: float = 0.1
    """Turn of the colour circle drawn from [-x, x]."""
    gray: float = 0.0
    """Probability of a grey image."""
    blur: float = 0.0
    """Probability of a 5x5 Gaussian blur."""
