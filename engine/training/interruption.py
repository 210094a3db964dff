"""Whether a run that is interrupted ends like one that is not, tried on the recipe, the data and the device at hand."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...pipelines.errors import UsageError, fault_unless, raise_faults, some_of
from ..device import resolve_device
from ..events import WARNING, Event, Listener, note, silent
from ..processes import launched
from ..recipe import Recipe
from .outcome import differences, outcome
from .signals import Stopped
from .trainer import Trainer

INTERRUPTIONS = 3
FEWEST = 4
"""Steps that can be interrupted so often."""
SHOWN = 5
"""Names that are told of what differs."""


@dataclass(frozen=True, slots=True)
class ResumeCheck:
    """What became of an interrupted run beside that of a straight one."""

    steps: int
    interrupted: tuple[int, ...]
    """After which steps; each time the run went on from a save of before."""
    compared: int
    """Tensors and log lines."""
    different: tuple[str, ...]
    """The names of those that are not the same, bit for bit."""

    @property
    def equal(self) -> bool:
        return not self.different

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"equal": self.equal} | asdict(self)

    def __str__(self) -> str:
        *others, last = map(str, self.interrupted)
        tried = f"{self.steps} steps, interrupted after {', '.join(others)} and {last}"
        if self.equal:
            return f"resume: equal: {tried}, end bit for bit like straight ones, in {self.compared} values"
        names = some_of(self.different, SHOWN)
        return f"resume: unequal: {tried}: {len(self.different)} of {self.compared} values differ: {names}"


class Cut(Exception):
    """Ends a run where it is, without a save."""


def verify_resume(recipe: Recipe, steps: int, on_event: Listener = silent) -> ResumeCheck:
    """Trains the recipe as a run of so many steps, once straight and once with interruptions at drawn steps, after each
    of which it goes on from its last save, in folders that are deleted then.

    The schedule is that of a whole run, in short. It is evaluated at its end, and as often as the recipe says.
    Raises UsageError for fewer than FEWEST steps, where the same bits are not to be had, and as Trainer does; Stopped
    after a signal.
    """
    raise_faults(fault_unless(steps >= FEWEST, "--verify-resume", f"must be at least {FEWEST} steps", steps))
    if launched() > 1:
        raise UsageError("--verify-resume: runs in one process; leave torchrun out")
    if resolve_device(recipe.runtime.device).type == "cuda" and not recipe.runtime.deterministic:
        raise UsageError("--verify-resume: a GPU gives the same bits with --deterministic alone; add it")
    every = max(steps // 8, 1)
    cuts = sorted(random.Random(recipe.seed).sample(range(every + 1, steps + 1), INTERRUPTIONS))
    recipe = recipe.replace(
        steps=steps,
        eval_every=recipe.runtime.eval_every or steps,
        log_every=1,
        save_every=str(every),
        warm_up=recipe.warm_up * steps // recipe.steps,
        resume=False,
        profile=False,
    )
    with tempfile.TemporaryDirectory(prefix="semiseg-") as folder:
        folders = Path(folder) / "straight", Path(folder) / "interrupted"
        straight, interrupted = (recipe.replace(out=out) for out in folders)
        _train(straight, on_event)
        for number, cut in enumerate(cuts):
            with suppress(Cut):
                _train(interrupted.replace(resume=number > 0), on_event, cut)
            note(f"interrupted after step {cut}", on_event)
        _train(interrupted.replace(resume=True), on_event)
        one, other = map(outcome, folders)
    return ResumeCheck(steps, tuple(cuts), len(one.keys() | other.keys()), tuple(differences(one, other)))


def _train(recipe: Recipe, on_event: Listener, cut: int | None = None) -> None:
    """Trains to the end, or until a step is logged."""

    def listen(event: Event) -> None:
        if event.kind == "progress" or event.text.startswith(WARNING):
            on_event(event)
        if event.kind == "log":
            on_event(Event("progress", Path(recipe.runtime.out or "").name, event.done, event.total))
            if event.done == cut:
                raise Cut

    try:
        Trainer(recipe, listen).train()
    except Stopped as stopped:
        raise Stopped(stopped.signal, "--verify-resume: interrupted before the verdict; start it again") from None
