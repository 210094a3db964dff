"""What the library knows of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A row of `DECODERS`: how the modules are made, and in what its published form differs from the others."""

    build: Callable[..., Any]
    """`build(channels, width)` makes the module that joins an encoder's maps of so many channels, of which `aspp` has
    changed the last one, to features. It states their channels as its `width`, which follows from the `width` that is
    asked for: 256 is the published size."""
    aspp: Callable[[int, int], nn.Module] | None = None
    """`aspp(inputs, width)` makes the pyramid for the last map: (B, inputs, h, w) to (B, width, h, w). None: the map
    stays as it is."""
    maps: int = 2
    """How many maps of the encoder it takes."""
    finer: int = 1
    """Positions of features and logits along a side of one position of the encoder's first map."""
    projection: int = 128
    """Channels of what the projector makes."""
    projector_head: bool = False
    """Whether the module has a head for the projector: `build(channels, width, projector=…)` says whether to make it,
    and `forward(*maps, projected=…)` whether it is asked. Its maps, as many channels as the features', follow these,
    and the projector is one 1x1 convolution of them; of others it is two of the features."""
    deep_stem: bool = False
    """Whether it was published with an encoder that has a deep stem, see `Encoder.forms`; so are the next three."""
    multi_grid: tuple[int, int, int] = (2, 4, 8)
    output_stride: Literal[8, 16] = 16
    ceil_pool: bool = False
    classifier_dropout: float = 0.0
    """Before the classifier; 0 for none."""
    kaiming: bool = True
    """Whether convolutions start Kaiming-normal; else as torch's do."""

    @property
    def forms(self) -> dict[str, Any]:
        """What an encoder that has forms is asked for."""
        names = ("deep_stem", "multi_grid", "output_stride", "ceil_pool")
        return {name: getattr(self, name) for name in names}
