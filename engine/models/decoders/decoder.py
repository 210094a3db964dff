"""What the library knows of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A row of `DECODERS`: in what a published form of DeepLabv3+ differs from the others."""

    deep_stem: bool
    """Whether its encoder has a deep stem, see `Encoder.build`."""
    aspp: Callable[[int, int], nn.Module]
    """`aspp(inputs, width)` makes the pyramid: (B, inputs, h, w) to (B, width, h, w)."""
    dropout: float
    """Between the two convolutions of the decoder; 0 for none."""
    classifier_dropout: float
    """Before the classifier; 0 for none."""
    stride: int = 4
    """Pixels of the image per position of features and logits."""
