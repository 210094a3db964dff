"""What every method is: a name, networks, the views it trains on, its losses, and the network that is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...kernels import pseudo_label, upsample_cross_entropy, upsample_ohem_cross_entropy
from ...pipelines.batch import IGNORE, Batch
from ...pipelines.errors import fault_unless, flag
from ...pipelines.views import ViewSpec
from ..distributed import average, gathered, own_rows, total
from ..models import Network

RAREST = 1e-4
"""The share of the labelled pixels below which a class weighs no more by being rarer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodContext:
    """What a method is built for."""

    network: Callable[..., Network]
    """Makes a new network, by the recipe's `decoder` and `backbone` or by others, on request with a `projector`."""
    classes: int
    crop: int
    """Pixels, the side of a window."""
    unlabeled_batch: int
    """Unlabelled images of a batch, over all processes."""
    accumulate: int = 1
    """Batches a step, of which one is meant wherever a batch is."""
    emulate_processes: int = 1
    """Into how many parts losses cut the batch, see `Method.mean_of_processes`."""
    processes: int = 1
    """Processes that share each step's batch; the parts are dealt out among them."""


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """What the unlabelled windows of a batch teach at one step; nothing of it has a gradient."""

    views: dict[str, Tensor]
    """By name, the windows (B, 3, S, S) as the networks see them; the first are as the labels lie."""
    label: Tensor
    """(N, S, S) uint8: of the windows of the batch in the order of its plan, those of a second stream or view behind
    those of the first. Windows that serve as partners alone may be left out."""
    kept: Tensor | None = None
    """(N, S, S) bool: the pixels that count; None where all do."""
    other: Tensor | None = None
    """(N, S, S) uint8: of the other network, where there are two: what it teaches the first, or has learnt from it."""
    kept_alone: bool = True
    """Whether pixels that are not kept teach nothing. Otherwise how many are kept weighs all alike."""


@dataclass(kw_only=True, slots=True)
class MethodConfig:
    """A method's settings; those here, of the supervised term, are shared by all methods."""

    ohem: float = 0.0
    """0: cross-entropy. Else OHEM: cross-entropy of the hardest pixels, at least this share of all."""
    ohem_threshold: float = 0.7
    """Pixels whose true class has at most this probability count as hard."""
    class_weights: Literal["none", "auto"] = "none"
    """What labelled pixels weigh. none: all the same; auto: 1 / sqrt(p), p being their class's share of the labelled
    pixels, so that rare classes count more."""
    ramp: float = 0.0
    """Share of the schedule over which the terms of unlabelled images gain their weight, from when they begin to count
    on, as exp(-5 (1 - t)^2), t from 0 to 1 (Laine and Aila, ICLR 2017); 0: they have it at once, as published."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from self.bounded("ohem", 0, 1)
        yield from self.bounded("ramp", 0, 1)
        yield from self.bounded("ohem_threshold", 0, 1)
        if self.ohem and self.class_weights != "none":
            yield "--method.class-weights: OHEM takes the hardest pixels as they are; leave out this or --method.ohem"

    def bounded(self, name: str, low: float, high: float = math.inf) -> list[str]:
        """The fault of a setting outside of [low, high], if it is."""
        rule = f"must be in [{low}, {high}]" if high < math.inf else f"must be at least {low}"
        value = getattr(self, name)
        return fault_unless(low <= value <= high, flag(f"method.{name}"), rule, value)


class Method(nn.Module):
    """A way to train. Sub-classes are one readable file each.

    `losses(batch, progress)` returns device scalars: "loss" is what is minimised, the others are its terms. Where
    several processes share the batch, each has losses of its own, whose means over the processes are those of the whole
    batch; `weighed`, `gathered` and `drawn` see to it that they are the ones that a single process would have.
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
    picked: ClassVar[frozenset[str]] = frozenset()
    """Buffers whose elements are picked by comparing numbers: where these round otherwise, other ones may be."""
    terms: ClassVar[dict[str, str]] = {}
    """The terms of the loss, and the setting that weighs each; the supervised one weighs 1 where it is not named."""
    labeled_terms: ClassVar[frozenset[str]] = frozenset({"supervised"})
    """Those of labelled images, which no ramp lets in late."""
    gain: Tensor
    class_weight: Tensor | None

    def __init__(self, config: MethodConfig, context: MethodContext):
        super().__init__()
        self.config, self.crop, self.processes = config, context.crop, context.processes
        self.emulate_processes = context.emulate_processes
        self.shares_mean = context.processes > 1 and context.emulate_processes == 1
        """Whether one mean is over the batches of several processes."""
        self.register_buffer("gain", torch.ones(()), persistent=False)
        by_label = (torch.arange(IGNORE + 1) != IGNORE).float() if config.class_weights == "auto" else None
        self.register_buffer("class_weight", by_label, persistent=False)

    @property
    def start(self) -> float:
        """Share of the schedule after which the terms of unlabelled images count."""
        return 0.0

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

    def before_step(self, step: int, progress: float) -> None:
        """Called before optimizer step `step`, counted from 0, outside of what a graph holds."""
        if self.config.ramp:
            risen = (progress - self.start) / self.config.ramp
            self.gain.fill_(math.exp(-5 * (1 - min(max(risen, 0), 1)) ** 2))

    def summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms, and as the loss their sum by `weights`; those of unlabelled images by the ramp, too."""
        weights: dict[str, Any] = {**self.weights()}
        if unknown := terms.keys() - weights.keys():
            raise ValueError(f"{self.name}: {', '.join(sorted(unknown))}: no term that `terms` names")
        if self.config.ramp:
            of_labeled = self.labeled_terms
            weights = {name: weight if name in of_labeled else self.gain * weight for name, weight in weights.items()}
        return {"loss": reduce(add, (weights[name] * term for name, term in terms.items()))} | terms

    def supervised(self, logits: Tensor, target: Tensor) -> Tensor:
        """The supervised term of one network: logits (B, C, h, w) at any stride, target (B, S, S)."""
        return self.mean_of_processes(self.cross_entropy, logits, target)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over the pixels that count, each as much as its class where the settings ask for weights, or over
        the hardest ones where they ask for OHEM."""
        if self.class_weight is not None:
            weight = self.class_weight[target.long()]
            whole = total(weight.sum()) / self.processes if self.shares_mean else weight.sum()
            summed = upsample_cross_entropy(logits, target, pixel_weight=weight, reduction="sum")
            return summed / whole.clamp(min=torch.finfo(whole.dtype).tiny)
        if not self.config.ohem:
            loss = upsample_cross_entropy(logits, target)
            return self.weighed(loss, (target != IGNORE).sum()) if self.shares_mean else loss
        parts = self.processes if self.shares_mean else 1
        loss = upsample_ohem_cross_entropy(
            logits,
            target,
            threshold=self.config.ohem_threshold,
            min_kept=round(self.config.ohem * target.numel() * parts),
            gather=self.gathered if self.shares_mean else None,
        )
        return parts * loss if self.shares_mean else loss

    def weigh_classes(self, shares: Tensor) -> None:
        """What `class_weights` is for classes with these shares (C,) of the labelled pixels, in [0, 1]; the mean over
        these pixels is 1."""
        assert self.class_weight is not None, "the settings ask for no class weights"
        weights = shares.clamp(min=RAREST).rsqrt()
        self.class_weight.zero_()  # pixels that are ignored weigh nothing
        self.class_weight[: len(shares)] = weights / (shares * weights).sum()

    def mean_of_processes(self, loss: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """The mean of `loss` over equal parts of the batch, which leads all `tensors`: every process of a published
        program normalises by what counts in its own part, and gradients are averaged over processes."""
        if self.emulate_processes == 1:
            return loss(*tensors)
        parts = zip(*(tensor.chunk(self.emulate_processes // self.processes) for tensor in tensors))
        return torch.stack([loss(*part) for part in parts]).mean()

    def weighed(self, mean: Tensor, count: Tensor) -> Tensor:
        """A mean over so many of this process's values, such that its mean over the processes is that over all values;
        as it is unless means are over several processes."""
        if not self.shares_mean:
            return mean
        share = count.clamp(min=1).to(mean.dtype) / total(count).clamp(min=1)
        return mean * (self.processes * share)

    def average(self, mean: Tensor) -> Tensor:
        """The mean over all processes of means over as many values each; no gradient."""
        return average(mean) if self.shares_mean else mean

    def gathered(self, tensor: Tensor) -> Tensor:
        """(N, …) of all processes that one mean is over, the first one's first; no gradient."""
        return gathered(tensor) if self.shares_mean else tensor

    def drawn(self, draw: Callable[[int], Tensor], *sizes: int) -> Tensor:
        """Random numbers for this process's rows, groups of so many: `draw(N)` gives those of N rows, (N, …)."""
        return own_rows(draw, *sizes) if self.processes > 1 else draw(sum(sizes))

    def pseudo_labels(self, batch: Batch) -> PseudoLabels | None:
        """What `losses` would take for true on the unlabelled windows of this batch, for people to look at; None for a
        method that takes nothing for true. Called without gradients; running statistics are put back afterwards."""
        return None

    def label(self, logits: Tensor) -> Tensor:
        """(N, S, S) uint8: the most probable classes by logits (N, C, h, w)."""
        return pseudo_label(logits, (self.crop, self.crop), confidence=False)[0]

    def begin(self) -> None:
        """Called once the networks have the weights that training starts from."""

    def after_step(self) -> None:
        """Called after each optimizer step, within what a graph holds: depends on tensors alone."""

    def predictor(self) -> Network:
        """The network that is saved, and whose score decides which step is the best."""
        raise NotImplementedError

    def predictors(self) -> dict[str, Network]:
        """All networks that are evaluated, by name; `predictor` is the first."""
        return {"network": self.predictor()}

    def networks(self) -> dict[str, Network]:
        """The networks that weights are loaded for and that are trained where they have something to learn, by name:
        the method's own, and of those in a list or another module of it the ones that have, unlike a teacher's."""
        found = {name: module for name, module in self.named_modules() if isinstance(module, Network)}
        own = {name for name, _ in self.named_children()}
        return {
            name: network
            for name, network in found.items()
            if name in own or any(parameter.requires_grad for parameter in network.parameters())
        }
