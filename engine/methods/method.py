"""What every method is: a name, networks, the views it trains on, its losses, and the network that is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels import upsample_cross_entropy, upsample_ohem_cross_entropy
from ...pipelines.batch import Batch
from ...pipelines.errors import require
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
class MethodConfig:
    """A method's settings; those here, of the supervised term, are shared by all methods."""

    ohem: float = 0.0
    """0: cross-entropy. Else OHEM: cross-entropy of the hardest pixels, at least this share of all."""
    ohem_threshold: float = 0.7
    """Pixels whose true class has at most this probability count as hard."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from self.bounded("ohem", 0, 1)
        yield from self.bounded("ohem_threshold", 0, 1)

    def bounded(self, name: str, low: float, high: float = math.inf) -> list[str]:
        """The fault of a setting outside of [low, high], if it is."""
        rule = f"must be in [{low}, {high}]" if high < math.inf else f"must be at least {low}"
        value = getattr(self, name)
        return require(low <= value <= high, f"--method.{name.replace('_', '-')}", rule, value)


class Method(nn.Module):
    """A way to train. Sub-classes are one readable file each.

    `losses(batch, progress)` returns device scalars: "loss" is what is minimised, the others are its terms.
    `progress` is the share of the schedule that is done, in [0, 1), and counts through `phase` alone. Shapes are static
    and nothing is read on the host.
    """

    name: ClassVar[str]
    """What recipes, checkpoints and tables call it."""
    config_class: ClassVar[type[MethodConfig]]
    views: ClassVar[ViewSpec] = ViewSpec()
    steady: ClassVar[bool] = False
    """Whether `losses` depends on nothing but the batch, tensors and the device's random numbers: not on progress, but
    for what `phase` says, nor on what Python or the host's generator holds."""
    terms: ClassVar[dict[str, str]] = {}
    """The terms of the loss, and the setting that weighs each; the supervised one weighs 1 where it is not named."""

    def __init__(self, config: MethodConfig, setting: Setting):
        super().__init__()
        self.config, self.crop, self.emulate_processes = config, setting.crop, setting.emulate_processes

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        """What the published program does otherwise than a recipe by default: a recipe's fields, and its values."""
        return {}

    def weights(self) -> dict[str, float]:
        """The terms of the loss and their weights."""
        return {"supervised": 1.0} | {term: getattr(self.config, setting) for term, setting in self.terms.items()}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """{"loss": what is minimised, term: value of every term of `weights` that counts at this progress}."""
        raise NotImplementedError

    def phase(self, progress: float) -> Hashable:
        """Which terms count at this progress. Within a phase `losses` does the same work on other batches, so that one
        graph can repeat it: by default there is one phase, or, unless the method is `steady`, one for each progress,
        and no graph."""
        return None if self.steady else progress

    def supervised(self, logits: Tensor, target: Tensor) -> Tensor:
        """The supervised term of one network: logits (B, C, h, w) at any stride, target (B, S, S)."""
        return self.mean_of_processes(self.cross_entropy, logits, target)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the pixels that count, or over the hardest ones where the settings ask for OHEM."""
        if not self.config.ohem:
            return upsample_cross_entropy(logits, target)
        kept = round(self.config.ohem * target.numel())
        return upsample_ohem_cross_entropy(logits, target, threshold=self.config.ohem_threshold, min_kept=kept)

    def mean_of_processes(self, loss: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """The mean of `loss` over equal parts of the batch, which leads all `tensors`: every process of a published
        program normalises by what counts in its own part, and gradients are averaged over processes."""
        if self.emulate_processes == 1:
            return loss(*tensors)
        parts = zip(*(tensor.chunk(self.emulate_processes) for tensor in tensors))
        return torch.stack([loss(*part) for part in parts]).mean()

    def begin(self) -> None:
        """Called once the networks have the weights that training starts from."""

    def after_step(self, step: int) -> None:
        """Called after optimizer step `step`, counted from 0. Reads nothing on the host."""

    def predictor(self) -> Network:
        """The network that is saved, and whose score decides which step is the best."""
        raise NotImplementedError

    def predictors(self) -> dict[str, Network]:
        """All networks that are evaluated, by name; `predictor` is the first."""
        return {"network": self.predictor()}

    def networks(self) -> dict[str, Network]:
        """The networks that are trained, by name."""
        return {name: module for name, module in self.named_children() if isinstance(module, Network)}
