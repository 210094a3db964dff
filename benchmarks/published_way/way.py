"""What the published programs have in common: networks, optimizer, loaders and a step; and the supervised one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.engine.models import Network, build_network
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import parameter_groups
from semiseg.pipelines.datasets.dataset import IGNORE
from semiseg.pipelines.datasets.manifest import Record

from .images import Images, LabeledImages, loader
from .network import published


class PublishedWay(nn.Module):
    """A recipe's method as its program has it. Sub-classes are methods."""

    branches: ClassVar[tuple[str, ...]] = ("network",)
    """Names of the networks that are trained, as ours call them."""
    streams: ClassVar[tuple[type[Images], ...]] = ()
    """What is read of unlabelled images, each by a loader of its own."""
    projector: ClassVar[bool] = False

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__()
        self.recipe, self.config = recipe, recipe.method
        for name in self.branches:
            options = {"head_width": recipe.head_width, "projector": self.projector}
            network = build_network(recipe.network, recipe.backbone, classes, **options)
            self.add_module(name, published(network))
        groups = parameter_groups(recipe, self)
        if recipe.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps)
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=recipe.momentum)
        self.train()

    def networks(self) -> dict[str, Network]:
        return {name: getattr(self, name) for name in self.branches}

    def loaders(self, labeled: Sequence[Record], unlabeled: Sequence[Record], workers: int) -> list[Iterator]:
        recipe = self.recipe
        first = LabeledImages(labeled, recipe.labeled, recipe.crop)
        others = [kind(unlabeled, recipe.unlabeled, recipe.crop, recipe.views) for kind in self.streams]
        return [
            loader(first, recipe.batch, workers),
            *(loader(other, recipe.unlabeled_batch, workers) for other in others),
        ]

    def step(self, *batches: Tensor | Sequence[Tensor]) -> dict[str, float]:
        """Trains on a batch, as `loaders` give it, labelled images first."""
        device = next(self.parameters()).device
        (x, target), *others = [
            batch.to(device) if isinstance(batch, Tensor) else [part.to(device) for part in batch] for batch in batches
        ]
        losses = self.losses(x, target, *others)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        self.after_step()
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, x: Tensor, target: Tensor, *others: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """{"loss": what is minimised, term: value}, under the names of ours."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after the optimizer's step."""

    @staticmethod
    def full(network: Network, x: Tensor) -> Tensor:
        """Logits at full resolution."""
        return upsampled(network(x), x.shape[-2:])


class Supervised(PublishedWay):
    def losses(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        loss = cross_entropy(self.full(self.network, x), target)
        return {"loss": loss, "supervised": loss}


def upsampled(logits: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, ignore_index=IGNORE)
