"""Evaluations during training: the scores of the networks, which step is the best, and the files that hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...pipelines.errors import UsageError
from ..checkpoint import header_of, load_network, save_network
from ..data import Data
from ..device import Precision
from ..evaluation.scores import Scores, finite, percent
from ..evaluation.validation import TILES, evaluate_each, own_share, room_to_judge
from ..events import Listener, note, progress_of
from ..methods import Method
from ..processes import heartbeat, is_main
from ..recipe import Recipe
from .graph import is_tried
from .saver import host_copy
from .state import Writer


class Judge:
    """Scores the networks of a method by the recipe's protocol. The first one's score decides which step is the
    best."""

    def __init__(self, recipe: Recipe, data: Data, method: Method, precision: Precision, on_event: Listener):
        self.recipe, self.data, self.method, self.precision, self.on_event = recipe, data, method, precision, on_event
        self.protocol = recipe.protocol()
        # What a captured step computes in stays its own meanwhile.
        self.otherwise = f"pass --graph off, or {TILES}" if is_tried(recipe, precision) else TILES
        self.best, self.best_step = math.nan, -1
        self.missed: list[int] = []
        """The steps of the evaluations since the best one."""

    def load_best(self, checkpoints: Path) -> None:
        """Goes on from the best network that a run has saved. By the file and not the state: where a save was passed
        over, it may be of a later step."""
        best = checkpoints / "best.safetensors"
        if not best.exists():
            return
        try:
            header = load_network(best).header
            self.best = math.nan if header.miou is None else header.miou
            self.best_step = header.step
        except UsageError as error:
            note(f"warning: {error}; the best network from now on takes its place", self.on_event)

    def scores(self) -> dict[str, Scores]:
        """Scores of all networks that the method has for it."""
        return {
            name: evaluate_each(
                network,
                self.data.val,
                self.data.dataset.classes,
                [self.protocol],
                precision=self.precision,
                prefix="--evaluation.",
                otherwise=self.otherwise,
                on_progress=self._going_on,
            )[0]
            for name, network in self.method.predictors().items()
        }

    def described(self, scores: Mapping[str, Scores], done: int) -> str:
        """The scores after a step in one line."""
        (main, first), *others = scores.items()
        best = " (best so far)" if self.protocol.prefers(first.miou, self.best) else ""
        of = f" of the {main}" if others else ""
        beside = "".join(f", of the {name} {percent(finite(score.miou))} %" for name, score in others)
        return f"step {done}/{self.recipe.steps}  val mIoU{of} {percent(finite(first.miou))} %{best}{beside}"

    def note_best(self, scores: Mapping[str, Scores], done: int) -> bool:
        """Whether a step is the best so far, which is kept in mind then."""
        miou = first_of(scores).miou
        # A network of no numbers says class 0 everywhere, which may score well.
        better = self.protocol.prefers(miou, self.best) and math.isfinite(largest_weight(self.method))
        if better:
            self.best, self.best_step, self.missed = miou, done, []
        elif done not in (self.best_step, *self.missed):  # a run that was stopped may judge its last step again
            self.missed.append(done)
        return better

    def past_patience(self) -> bool:
        """Whether the last evaluations, as many as the run has patience for, were none of them the best."""
        patience = self.recipe.runtime.patience
        return patience is not None and len(self.missed) >= patience

    def writers(self, scores: Mapping[str, Scores], done: int, *, best: bool) -> dict[str, Writer]:
        """What writes last.safetensors, and best.safetensors where the step is the best so far, which hold the first
        network, and last-NAME.safetensors and best-NAME.safetensors, which hold the others."""
        which = ["last", "best"] if best else ["last"]
        writers: dict[str, Writer] = {}
        if not is_main():
            return writers
        dataset, survey = self.data.dataset, self.data.manifest.survey
        for number, (name, network) in enumerate(self.method.predictors().items()):
            header = header_of(
                self.recipe,
                network,
                dataset.classes,
                dataset.palette,
                values=dataset.values.of_classes,
                levels=survey.levels,
                as_stored=survey.as_stored,
                step=done,
                miou=scores[name].miou,
            )
            weights = host_copy(network.state_dict())
            write = partial(save_network, weights=weights, header=header, recipe=self.recipe)
            writers |= {f"{one}-{name}.safetensors" if number else f"{one}.safetensors": write for one in which}
        return writers

    def _going_on(self, done: int, count: int) -> None:
        """An evaluation may take long, but goes on."""
        heartbeat(f"{done} of {count} images evaluated")
        progress_of("evaluating", self.on_event)(done, count)


def require_room(recipe: Recipe, data: Data, precision: Precision) -> None:
    """Raises UsageError where memory does not do for the evaluations of a run, before it spends steps."""
    classes, own = len(data.dataset.classes), own_share(data.val)
    form: dict[str, Any] = {"classes": classes, "head_width": recipe.head_width, "precision": precision}
    with room_to_judge(own, [recipe.protocol()], **form, prefix="--evaluation."):
        pass


def first_of(scores: Mapping[str, Scores]) -> Scores:
    """Scores of the network that is saved as the method's."""
    return next(iter(scores.values()))


def line_of(scores: Mapping[str, Scores], done: int) -> dict[str, Any]:
    """The log's line of an evaluation after a step."""
    (_, first), *others = scores.items()
    line = {"step": done, "val/miou": first.miou, "val/pixel_accuracy": first.pixel_accuracy}
    line |= {f"val/iou/{name}": iou for name, iou in first.iou.items()}
    for name, score in others:
        line |= {f"val/{name}/miou": score.miou, f"val/{name}/pixel_accuracy": score.pixel_accuracy}
    return line


def largest_weight(method: Method) -> float:
    """The largest magnitude among a method's parameters and buffers, NaN where one is NaN."""
    values = [value for value in method.state_dict().values() if value.is_floating_point()]
    extremes = [extreme.float() for value in values for extreme in value.aminmax()]
    return float(torch.stack(extremes).abs().max())
