"""What the library knows of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

RGB = tuple[float, float, float]
State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A row of `ENCODERS`: how the module is made, and all that others need to know of it."""

    build: Callable[..., nn.Module]
    """`build()` makes a module of random weights: normalised images (B, 3, H, W) to a map for each of `strides`, sides
    rounded up. Where the encoder has `forms`, it takes them by name."""
    channels: tuple[int, ...]
    """Channels of each map."""
    strides: tuple[int, ...]
    """Pixels of the image per position of each map, the finest first."""
    multiple: int
    """The sides of images must be multiples of it, in pixels; 1 where they are free."""
    weights: Callable[[], tuple[State, str]]
    """Finds the pretrained weights: a state dict with the names of the published file, and the name of that file.
    Raises UsageError with the way out."""
    adapt: Callable[[State], State] = dict
    """From the names of published files to those of the module, without what belongs to classification alone. Raises
    UsageError where the state dict is of another encoder, saying which."""
    forms: bool = False
    """Whether published networks have forms of it of their own (ResNets): `deep_stem` asks for three 3x3 convolutions
    in the stem instead of one of 7x7, `multi_grid` for the dilations of the last stage, `output_stride` 8 for a last
    map of half the stride, `ceil_pool` for a pooling in the stem that makes some sides a position longer."""
    mean: RGB = (0.485, 0.456, 0.406)
    """Each channel's mean in [0, 1], subtracted from images: ImageNet's."""
    std: RGB = (0.229, 0.224, 0.225)
    """Each channel's deviation, which divides what is left."""

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour in grey levels: what lies outside an image."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    @property
    def least(self) -> int:
        """The smallest side of images: one position of the coarsest map."""
        return max(self.multiple, *self.strides)


def without(*prefixes: str) -> Callable[[State], State]:
    """An `adapt` that leaves out the entries whose names begin so."""

    def adapt(state: State) -> State:
        return {name: value for name, value in state.items() if not name.startswith(prefixes)}

    return adapt
