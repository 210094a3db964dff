"""What every method is: networks, the views it trains on, its losses, and the network that is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ...kernels import upsample_cross_entropy, upsample_ohem_cross_entropy
from ...pipelines.errors import UsageError
from ...pipelines.loader import Batch
from ...pipelines.views import ViewSpec
from ..models import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a method is built for. `network(projector=...)` makes a new network with its starting weights."""

    network: Callable[..., Network]
    crop: int
    """Pixels, the side of a window."""
    unlabeled_batch: int
    """Unlabelled images a step on this process."""


@dataclass(kw_only=True, slots=True)
class SupervisedTerm:
    """The supervised term, which all methods share."""

    ohem: float = 0.0
    """0: cross-entropy. Else OHEM: cross-entropy of the hardest pixels, at least this share of all."""
    ohem_threshold: float = 0.7
    """Pixels whose true class has at most this probability count as hard."""

    def check(self) -> None:
        """Raises UsageError for values that make no sense, naming the field."""
        self.require("ohem", 0, 1)
        self.require("ohem_threshold", 0, 1)

    def require(self, name: str, low: float, high: float = math.inf) -> None:
        if not low <= getattr(self, name) <= high:
            bounds = f"must be in [{low}, {high}]" if high < math.inf else f"must be at least {low}"
            raise UsageError(f"--method.{name.replace('_', '-')}: {bounds}, is {getattr(self, name)}")

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """logits (B, C, h, w) at stride 4, target (B, S, S) -> the mean over the pixels that count."""
        if not self.ohem:
            return upsample_cross_entropy(logits, target)
        kept = round(self.ohem * target.numel())
        return upsample_ohem_cross_entropy(logits, target, threshold=self.ohem_threshold, min_kept=kept)


class Method(nn.Module):
    """A way to train. Sub-classes are one readable file each.

    `losses(batch, progress)` returns device scalars: "loss" is what is minimised, the others are its terms.
    `progress` is the share of the schedule that is done, in [0, 1). Shapes are static and nothing is read on the host.
    """

    views: ClassVar[ViewSpec] = ViewSpec()

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        """What the published program does otherwise than a recipe by default: a recipe's fields, and its values."""
        return {}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def predictor(self) -> Network:
        """The network that is evaluated and saved."""
        raise NotImplementedError

    def networks(self) -> dict[str, Network]:
        """The networks that are trained, by name."""
        return {name: module for name, module in self.named_children() if isinstance(module, Network)}
