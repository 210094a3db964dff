"""What every method is: networks, the views it trains on, its losses, and the network that is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels import upsample_cross_entropy, upsample_ohem_cross_entropy
from ...pipelines.batch import Batch
from ...pipelines.errors import UsageError
from ...pipelines.views import ViewSpec
from ..models import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a method is built for. `network(projector=...)` makes a new network."""

    network: Callable[..., Network]
    crop: int
    """Pixels, the side of a window."""
    unlabeled_batch: int
    """Unlabelled images a step, over all processes."""
    emulate_processes: int = 1
    """Into how many parts losses cut the batch, see `Method.mean_of_processes`."""


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

    def __init__(self, config: SupervisedTerm, setting: Setting):
        super().__init__()
        self.config, self.parts = config, setting.emulate_processes

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        """What the published program does otherwise than a recipe by default: a recipe's fields, and its values."""
        return {}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def supervised(self, logits: Tensor, target: Tensor) -> Tensor:
        """The supervised term of one network."""
        return self.mean_of_processes(self.config.loss, logits, target)

    def mean_of_processes(self, loss: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """The mean of `loss` over equal parts of the batch, which leads all `tensors`: every process of a published
        program normalises by what counts in its own part, and gradients are averaged over processes."""
        if self.parts == 1:
            return loss(*tensors)
        return torch.stack([loss(*part) for part in zip(*(tensor.chunk(self.parts) for tensor in tensors))]).mean()

    def predictor(self) -> Network:
        """The network that is evaluated and saved."""
        raise NotImplementedError

    def networks(self) -> dict[str, Network]:
        """The networks that are trained, by name."""
        return {name: module for name, module in self.named_children() if isinstance(module, Network)}
