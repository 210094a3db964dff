"""The pseudo-label X-ray: what unlabelled images teach at a step, how much of it is right, and the views themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import box_mask
from ...pipelines.backends import PLAIN, open_backend
from ...pipelines.batch import Batch, Windows
from ...pipelines.datasets.dataset import IGNORE
from ...pipelines.errors import UsageError, some_of
from ...pipelines.loader import collate
from ...pipelines.plan import Plan
from ..data import Data
from ..device import Precision
from ..distributed import total
from ..methods import Method, PseudoLabels
from ..models import Encoder
from ..recipe import Recipe
from ..sheet import Panel, Row
from .build import planner_of, threads_of

LABELED, UNLABELED = 2, 4
"""Windows of a sheet."""
COLLAPSED = 0.99
"""The share of one class among pseudo-labels from which on they are called collapsed, unless labels have it, too."""
MARGIN = 0.05
"""By so much less a class's share of the labels must be."""
NOTHING = 0.001
"""The share of pixels below which nothing is said to count."""
HARDLY, NAMED = 0.1, 5
"""The share of the pixels called so below which it is told that a class hardly counts, and how many are named."""


@dataclass(frozen=True, slots=True)
class OfClass:
    """What was seen of one class. Shares in [0, 1], NaN of nothing."""

    said: float
    """Pixels called so, as a share of those that show an image."""
    taught: float
    """Pixels called so, as a share of those that count."""
    kept: float | None = None
    """The share of the pixels called so that counts; None where all do."""
    right: float | None = None
    """The share of those that count that is right; None where the truth is not known."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one step, over the unlabelled windows of all processes, of the first micro-batch where there are
    several. Shares in [0, 1]."""

    kept: float | None
    """The share of the pixels that show an image that counts; None where all do."""
    right: float | None
    """The share of those that count that is labelled as the truth says; None where it is not known."""
    disagreement: float | None
    """The share of the pixels that show an image that two networks call differently; None where there is one."""
    classes: dict[str, OfClass]
    rows: Sequence[Row]
    """This process's windows, for a sheet."""
    kept_alone: bool = True
    """Whether the pixels that do not count teach nothing."""

    def line(self) -> dict[str, float]:
        """The log's keys."""
        shares = {"kept_pct": self.kept, "right_pct": self.right, "disagreement_pct": self.disagreement}
        for name, seen in self.classes.items():
            shares |= {f"class_pct/{name}": seen.taught, f"kept_pct/{name}": seen.kept, f"right_pct/{name}": seen.right}
        return {f"pseudo/{name}": 100 * share for name, share in shares.items() if share is not None}

    def __str__(self) -> str:
        parts = []
        if self.kept is not None:
            rare = some_of(self.hardly, NAMED, repr)
            among = f" (less than {100 * HARDLY:.0f} % of those called {rare})" if rare else ""
            parts.append(f"{100 * self.kept:.1f} % of the pixels count{among}")
        if self.right is not None and not math.isnan(self.right):
            parts.append(f"{100 * self.right:.1f} % of {'them' if parts else 'all pixels'} are right")
        if self.disagreement is not None:
            parts.append(f"the networks disagree on {100 * self.disagreement:.1f} %")
        return ", ".join(parts)

    @property
    def hardly(self) -> list[str]:
        """The classes that hardly teach, as next to none of their pixels counts, where more do of the others."""
        if self.kept is None or self.kept < HARDLY or not self.kept_alone:
            return []
        return [name for name, seen in self.classes.items() if seen.said > NOTHING and (seen.kept or 0) < HARDLY]


class Xray:
    """Looks at the pseudo-labels of a recipe's method between two steps, without a trace in what is trained.

    The windows are those of the step's plan, cut anew, and with them the truth, where every unlabelled image happens to
    have a mask. No step reads it.
    """

    def __init__(self, recipe: Recipe, data: Data, precision: Precision):
        self.recipe, self.data, self.precision = recipe, data, precision
        self.records = [*data.labeled, *data.unlabeled]
        self.planner = planner_of(recipe, data)
        self.cut = open_backend(PLAIN, self.records, precision.device, threads_of(recipe))
        self.bars = [name for name in ("threshold", "unreliable") if hasattr(recipe.method, name)]
        """The settings of the method that keep labels from counting."""
        self.known = all(record.mask for record in data.unlabeled)
        self.labels = [pct / 100 for pct in data.class_pct().values()]
        self.step, self.suspect = -1, ""
        self.told: list[str] = []
        """The last look: when it was, and what it makes fear, nothing where it is empty; and what was told."""

    def __call__(self, method: Method, step: int) -> Look | None:
        """What the method takes for true on the windows of a step; None for one that takes nothing for true. Every
        process calls it."""
        plan = self.planner(step)
        batch = self._batch(plan)
        with undisturbed(method, self.precision.device), self.precision.autocast():
            seen = method.pseudo_labels(batch)
        if seen is None:
            return None
        count, device = len(seen.label), self.precision.device
        views = [replace(stream, views=(view,)) for stream in plan.unlabeled for view in stream.views]
        valid = np.concatenate([stream.views[0].valid(plan.crop) for stream in views])[:count]
        shown = box_mask(torch.from_numpy(valid)[:, None].to(device), (plan.crop, plan.crop))
        truth = self._truth([Plan(stream, plan.crop) for stream in views])
        truth = None if truth is None else truth[:count].to(device)
        ids = [self.records[number].id for stream in (plan.labeled, *views) for number in stream.record]
        return self._look(seen, shown, truth, rows_of(batch, seen, truth, ids, self.recipe.encoder))

    def suspicion(self, look: Look, step: int) -> str | None:
        """What goes wrong, in one line, at the second of two looks in a row that show it; once a run. The look at a
        step may be repeated."""
        suspect, line = self._fault(look)
        again = suspect == self.suspect and step > self.step
        self.step, self.suspect = step, suspect
        if not suspect or not again or suspect in self.told:
            return None
        self.told.append(suspect)
        return line

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know to say nothing twice."""
        return {"step": self.step, "suspect": self.suspect, "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.suspect, self.told = state["step"], state["suspect"], list(state["told"])

    def _fault(self, look: Look) -> tuple[str, str]:
        """By its name, and in one line; two empty texts where there is none."""
        shares = np.array([seen.taught for seen in look.classes.values()])
        first = int(np.nanargmax(shares)) if not np.isnan(shares).all() else -1
        if look.kept is not None and look.kept < NOTHING:
            cures = "".join(f"lower --method.{one}, or " for one in self.bars)
            return "nothing counts", (
                f"nothing is sure enough to count, so that unlabelled images teach nothing; {cures}train longer: with "
                "more --steps or a larger --lr the network becomes surer"
            )
        if shares[first] > COLLAPSED and self.labels[first] < COLLAPSED - MARGIN:
            name = list(look.classes)[first]
            late = [] if self.recipe.method.ramp else ["let the unlabelled images come in late (--method.ramp 0.5)"]
            cures = ", ".join([*late, *(f"raise --method.{one}" for one in self.bars), "lower --lr"])
            return f"all is {name}", (
                f"{100 * shares[first]:.1f} % of what counts is {name!r}, which is {100 * self.labels[first]:.0f} % of "
                f"the labels: the run teaches itself one class; {cures}, or start from "
                "pretrained --weights"
            )
        return "", ""

    def _batch(self, plan: Plan) -> Batch:
        encoder, channels_last = self.recipe.encoder, self.recipe.runtime.channels_last
        colours: dict[str, Any] = {"mean": encoder.mean, "std": encoder.std, "channels_last": channels_last}
        return collate(plan, self._windows(plan), self.precision.device, **colours)

    def _windows(self, plan: Plan) -> Windows:
        plans = self.cut(repeat(plan))
        try:
            return next(plans)[1]
        finally:
            plans.close()

    def _truth(self, plans: Sequence[Plan]) -> Tensor | None:
        """(N, S, S) uint8; None where it is not known."""
        if not self.known:
            return None
        try:
            return torch.cat([self._windows(plan).target for plan in plans])
        except UsageError:  # a mask that is gone, which training does not need
            self.known = False
            return None

    def _look(self, seen: PseudoLabels, shown: Tensor, truth: Tensor | None, rows: Sequence[Row]) -> Look:
        kept = shown if seen.kept is None else shown & seen.kept
        judged = kept & (truth != IGNORE) if truth is not None else torch.zeros_like(kept)
        right = judged & (seen.label == truth) if truth is not None else judged
        apart = shown & (seen.label != seen.other) if seen.other is not None else torch.zeros_like(kept)
        classes = self.data.dataset.classes
        parts = (shown, kept, judged, right)
        counts = [torch.bincount(seen.label[part].long(), minlength=len(classes)) for part in parts]
        *summed, differing = total(torch.cat([*counts, apart.sum()[None]])).tolist()
        by_part = np.reshape(summed, (len(parts), len(classes)))
        of_shown, of_kept, of_judged, of_right = by_part.sum(1).tolist()
        return Look(
            kept=None if seen.kept is None else of_kept / max(of_shown, 1),
            right=None if truth is None else share(of_right, of_judged),
            disagreement=None if seen.other is None else differing / max(of_shown, 1),
            classes={
                name: OfClass(
                    said=share(said, of_shown),
                    taught=share(counting, of_kept),
                    kept=None if seen.kept is None else share(counting, said),
                    right=None if truth is None else share(true, known),
                )
                for name, (said, counting, known, true) in zip(classes, by_part.T.tolist(), strict=True)
            },
            rows=rows,
            kept_alone=seen.kept_alone,
        )


def share(part: int, whole: int) -> float:
    """NaN of nothing."""
    return part / whole if whole else float("nan")


@contextmanager
def undisturbed(method: Method, device: torch.device) -> Iterator[None]:
    """Passes inside have no gradients, and leave running statistics and random numbers as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
    with (
        torch.no_grad(),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager"),
    ):
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)


def rows_of(batch: Batch, seen: PseudoLabels, truth: Tensor | None, ids: Sequence[str], encoder: Encoder) -> list[Row]:
    """Some labelled windows with their targets, some unlabelled ones with what they teach; `ids` of all, the labelled
    ones first. What does not count is ignored."""

    def pictures(images: Tensor) -> np.ndarray:
        """Normalised (B, 3, S, S) as (B, S, S, 3) uint8."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.mean, encoder.std))
        pixels = 255 * (images.float().cpu() * std + mean)
        return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()

    x, target = pictures(batch.labeled.image[:LABELED]), batch.labeled.target[:LABELED].cpu().numpy()
    rows = [Row.of_sample(f"labelled: {id}", *one) for id, *one in zip(ids, x, target)]
    views = {name: pictures(images[:UNLABELED]) for name, images in seen.views.items()}
    label = seen.label[:UNLABELED]
    counting = label if seen.kept is None else label.masked_fill(~seen.kept[:UNLABELED], IGNORE)
    for number, mask in enumerate(counting.cpu().numpy()[: len(next(iter(views.values())))]):
        panels = [Panel(name, images[number]) for name, images in views.items()]
        panels.append(Panel(f"pseudo-label, {next(iter(views))}", mask=mask))
        if truth is not None:
            panels.append(Panel("truth", mask=truth[number].cpu().numpy()))
        rows.append(Row(f"unlabelled: {ids[len(batch.labeled.image) + number]}", panels, mask))
    return rows
