"""What the library knows of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A row of `DECODERS`: how the modules are made, and in what its published form differs from the others."""

    build: Callable[[tuple[int, ...], int], Any]
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
    deep_stem: bool = False
    """Whether it was published with an encoder that has a deep stem, see `Encoder.forms`."""
    multi_grid: tuple[int, int, int] = (2, 4, 8)
    """The dilations of the last stage of the encoder that it was published with."""
    classifier_dropout: float = 0.0
    """Before the classifier; 0 for none."""
    kaiming: bool = True
    """Whether convolutions start Kaiming-normal; else as torch's do."""
