"""`semiseg train RECIPE`, which is what a recipe script runs."""

from __future__ import annotations

import inspect
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from ...pipelines.datasets.layouts import LAYOUTS
from ...pipelines.errors import UsageError
from .. import api, console
from ..catalogue import adapted
from ..data import locate
from ..device import resolve_device, resolve_precision
from ..evaluation.scores import finite, percent
from ..events import Event, Listener
from ..hyperparameters import hyperparameters
from ..memory import within_memory
from ..processes import is_main, reports_errors
from ..recipe import Recipe
from ..training.forecast import forecast
from ..training.interruption import verify_resume
from ..training.result import Result
from ..training.signals import Stopped
from . import slurm
from .options import Flat, emit, parsed
from .table import show_settings


@dataclass(kw_only=True, slots=True)
class Command:
    """`semiseg train RECIPE`."""

    recipe: Flat[Recipe]
    """The recipe, and what is said over it."""
    verify_resume: int | None = None
    """Only test, in temporary folders, whether a run of so many steps that is interrupted three times ends bit for bit
    like one that is not; exits with 1 if not. On a GPU it needs --deterministic."""
    dry_run: bool = False
    """Print the settings, and stop."""
    json: bool = False
    """Print one JSON document on standard output; everything else goes to standard error."""


def train(build: Callable[..., Recipe], arguments: list[str]) -> None:
    """Trains a recipe with the settings of the command line over it. Raises UsageError, and Stopped after a signal."""
    command, default = parse(build, arguments)
    recipe = command.recipe
    if command.dry_run:
        recipe.check()
        if is_main():
            dry_run(recipe, default, json=command.json)
        return
    if command.verify_resume is not None:
        verify(recipe, command.verify_resume, json=command.json)
        return
    lr_said = any(argument.partition("=")[0] == "--lr" for argument in arguments)
    with console.listening() as listener:

        def show(event: Event) -> None:
            if event.kind == "ready":
                show_settings(event.values["recipe"], default, event.values["classes"])
            listener(event)
            if event.kind == "ready" and recipe.weights == "none" and default.published and not lr_said:
                console.say(
                    f"weights: none; the published --lr {recipe.lr:g} is for ImageNet weights, a larger one may do "
                    "better"
                )

        result = api.train(recipe, show) if not recipe.runtime.requeue else trained_in_job(recipe, show)
    if not is_main():
        return
    report = result.out / "report.html"
    best, last = (percent(finite(score)) for score in (result.best, result.last))
    console.say(
        f"mIoU best {best} % (step {result.best_step}), last {last} %   "
        f"{result.images_per_s:.1f} images/s, data wait {result.data_wait_pct:.0f} %   {result.seconds:.0f} s"
    )
    for name, miou in result.beside.items():
        if miou > result.best:  # nothing else says so of a file that predict, evaluate and export pass over
            better = result.out / "checkpoints" / f"last-{name}.safetensors"
            console.say(f"the {name} ends higher, with {percent(miou)} %: {shlex.quote(str(better))}")
    console.say(f"report: {report}")
    console.say(f"to segment a folder with its best network: semiseg predict {shlex.quote(str(result.out))} IMAGES")
    if command.json:
        emit(result.to_dict() | {"report": str(report)})


def trained_in_job(recipe: Recipe, listener: Listener) -> Result:
    """As api.train, in a job of SLURM, which is started again after a signal."""
    slurm.require_job()
    try:
        return api.train(recipe, listener)
    except Stopped as stopped:
        if stopped.signal in (signal.SIGINT, signal.SIGHUP):  # a person, who means it
            raise
        raise Stopped(stopped.signal, f"{stopped}; {slurm.requeue()}") from None


def verify(recipe: Recipe, steps: int, *, json: bool) -> None:
    """Says whether resuming is exact; exits with 1 where it is not."""
    recipe.check()
    with console.listening() as listener:
        verdict = verify_resume(recipe, steps, listener)
    console.say(str(verdict))
    if json:
        emit(verdict.to_dict())
    if not verdict.equal:
        sys.exit(1)


def dry_run(recipe: Recipe, default: Recipe, *, json: bool) -> None:
    """Prints what would be trained."""
    classes = len(locate(recipe).classes) if recipe.runtime.data else None
    if not json:
        show_settings(recipe, default, classes)
        if known := classes or len(LAYOUTS[recipe.layout].classes or ()):
            precision = resolve_precision(recipe.runtime.precision, resolve_device(recipe.runtime.device))
            with within_memory(
                lambda: "--dry-run: the networks alone need more memory than there is; pass smaller ones"
            ):
                console.say(f"{forecast(recipe, known, precision)}, of images as large as the windows")
        return
    published = None
    if default.published:
        published = hyperparameters(default.as_published().replace(network=recipe.network), classes)
    emit({"effective": hyperparameters(recipe, classes), "published": published})


def recipe_words(words: str, where: str) -> tuple[str, list[str]]:
    """A recipe's name and the flags behind it, of a text such as "cac_voc --lr 0.02". Raises UsageError, which begins
    with `where`."""
    try:
        name, *flags = shlex.split(words)
    except ValueError:
        raise UsageError(f"{where}: {words!r} is no name of a recipe with flags behind it") from None
    return name, flags


def parse(build: Callable[..., Recipe], arguments: list[str], *hints: str) -> tuple[Command, Recipe]:
    """What a command line asks for, and the recipe that it departs from. Raises UsageError, with hints behind
    it, for a command line that asks for none.

    What it leaves open may hang on what it says (see `adapted`). So it is read once for that, and then over defaults
    that go with it.
    """

    def read(default: Recipe) -> Command:
        program, said_by_script = f"semiseg train {default.name}", inspect.getdoc(inspect.getmodule(build))
        with nullcontext() if reports_errors() else console.quiet():
            described = said_by_script or default.name
            return parsed(Command, arguments, program, *hints, default=Command(recipe=default), description=described)

    said = read(build())
    default, original = adapted(build, said.recipe)
    return (said if default == build() else read(default)), original
