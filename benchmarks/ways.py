"""Ways to train on Pascal VOC: that of the published programs, ours, and those between, a technique at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from published_way import METHODS, as_published, published
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.data import Data
from semiseg.engine.device import resolve_precision
from semiseg.engine.models import Network
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method, open_loader
from semiseg.engine.training.step import Step
from semiseg.pipelines.dali import installed
from semiseg.pipelines.progress import Say

PILLOW = "pillow"
STEPS = 100_000
"""Of the schedule, so that the learning rate hardly falls while it is measured."""
OF_A_STEP = ("method.labels", "method.perturbed_statistics", "sampling.cutmix_partner")
"""The switches of a recipe that decide what a step computes, and of how many windows."""
FROM_0 = ("start", "teacher_start", "threshold", "anchor_threshold")
"""Settings that keep terms from counting in the first steps, or for a network that has not learnt and is sure of
nothing."""


@dataclass(frozen=True)
class Way:
    """What of a training step is as the published programs have it."""

    backend: str = PILLOW
    """Input: Pillow in the workers of a DataLoader, which draw for themselves, or one of our backends."""
    losses: Literal["published", "fused"] = "published"
    """published: of logits at full resolution, with what the host reads in every step; fused: ours, which wait for
    nothing."""
    decoder: Literal["published", "lean"] = "published"
    """published: upsamples maps, then convolves them; lean: ours, the other way round."""
    channels_last: bool = False
    precision: str = "fp32"
    graph: bool = False
    compile: bool = False


def waterfall(device: torch.device, low: str, compiled: bool) -> dict[str, Way]:
    """The ways by what each adds to the one before, the first as published, the last ours. low: the precision that the
    device is fast at; compiled: whether the last one compiles the networks."""
    gpu = device.type == "cuda"
    dali = gpu and installed()
    steps: list[tuple[str, bool, dict[str, Any]]] = [
        ("loader in threads", not dali, {"backend": "host"}),
        ("loader on the GPU", dali, {"backend": "dali"}),
        ("decoded images", True, {"backend": "resident"}),
        ("fused losses", True, {"losses": "fused"}),
        ("lean decoder", True, {"decoder": "lean"}),
        ("channels-last", True, {"channels_last": True}),
        (low, low in ("bf16", "fp16"), {"precision": low}),
        ("one graph", gpu, {"graph": True}),
        ("compiled", compiled, {"compile": True}),
    ]
    way = Way(precision="tf32" if gpu else "fp32")
    ways = {"published way": way}
    for name, wanted, change in steps:
        if wanted:
            ways[name] = way = replace(way, **change)
    return ways


def voc_recipe(method: str, data: Path, device: str, threads: int, *, backbone: str, crop: int, batch: int) -> Recipe:
    """A method's recipe on half of VOC's labels, with random weights and all terms of the loss from the first step, of
    which each computes what the published one does. Raises UsageError where it makes no sense."""
    recipe = load_recipe(f"{method}_voc").replace(
        backbone=backbone,
        weights="none",
        crop=crop,
        batch=batch,
        split="draw:1/2@0",
        data=data,
        device=device,
        threads=threads,
        steps=STEPS,
    )
    changes = {path: value for path, value in recipe.switches().items() if path in OF_A_STEP}
    changes |= {f"method.{name}": 0.0 for name in FROM_0 if hasattr(recipe.method, name)}
    recipe = recipe.changed(changes)
    recipe.check()
    return recipe


def set_default_products() -> None:
    """Products as torch begins with them, and so the published programs: on a GPU TF32 in convolutions alone."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.conv.fp32_precision = "tf32"


class Training:
    """A recipe trained in one way: batches, and the step that takes one. Ways that share a recipe begin with the same
    weights, and those that do not draw for themselves see the same batches."""

    def __init__(self, way: Way, recipe: Recipe, data: Data, device: torch.device, say: Say):
        classes = len(data.dataset.classes)
        if way.backend != PILLOW:
            recipe = recipe.replace(backend=way.backend)
        recipe = recipe.replace(
            channels_last=way.channels_last,
            precision=way.precision,
            compile=way.compile,
            graph="auto" if way.graph else "off",
        )
        random.seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.way, self.device, self.loader, self.ours = way, device, None, None
        precision = resolve_precision(way.precision, device)
        self.set_products = set_default_products if way.losses == "published" else precision.allow_tf32
        self.set_products()
        if way.losses == "published":
            self.method = METHODS[recipe.method_class.name](recipe, classes).to(device)
        else:
            self.method = build_method(recipe, classes).to(device).train()
            for network in self.method.modules():
                if isinstance(network, Network):
                    self._fit(network)
            if way.channels_last:
                self.method.to(memory_format=torch.channels_last)
            self.ours = Step(recipe, self.method, precision, say)
        if way.backend == PILLOW:
            loaders = self.method.loaders(data.labeled, data.unlabeled, recipe.runtime.threads)
            self.batches: Iterator[Any] = zip(*loaders)
        else:
            self.loader = open_loader(recipe, data, device)
            self.batches = iter(self.loader)

    def _fit(self, network: Network) -> None:
        if self.way.decoder == "published":
            published(network)
        if self.way.compile:
            network.compile()

    @property
    def graph(self) -> bool:
        """Whether steps are replayed from a graph, or are to be."""
        return self.ours is not None and self.ours.graph is not None

    def step(self, batch: Any, number: int) -> dict[str, Tensor]:
        """Makes optimizer step `number`, from 0, and returns its losses."""
        self.set_products()  # for the whole process, in which another way may have had its turn
        if self.ours is not None:
            return self.ours(batch, number)
        batch = batch if self.way.backend == PILLOW else as_published(batch)
        return {name: torch.tensor(loss) for name, loss in self.method.step(*batch).items()}

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()
