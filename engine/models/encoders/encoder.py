"""What the library knows of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

RGB = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A row of `ENCODERS`: how the module is made, and all that others need to know of it."""

    build: Callable[..., nn.Module]
    """`build(deep_stem=False)` makes a module of random weights: normalised images (B, 3, H, W) to a map for each of
    `strides`, sides rounded up. `deep_stem` asks for three 3x3 convolutions in the stem instead of one of 7x7."""
    channels: tuple[int, ...]
    """Of each map."""
    strides: tuple[int, ...]
    """Pixels of the image per position of each map."""
    multiple: int
    """The sides of training crops must be multiples of it, in pixels."""
    weights: Callable[[], tuple[dict[str, Tensor], str]]
    """Finds the pretrained weights: a state dict and the name of its file. Raises UsageError with the way out."""
    mean: RGB = (0.485, 0.456, 0.406)
    """Of each channel in [0, 1], subtracted from images: ImageNet's."""
    std: RGB = (0.229, 0.224, 0.225)
    """Of each channel, divides what is left."""

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour in grey levels: what lies outside an image."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue
