"""Which run goes on, and what must not have changed since it began."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...pipelines.backends import same_windows_as
from ...pipelines.errors import UsageError, some_of
from ...pipelines.progress import Say
from ..data import Data
from ..device import resolve_device, resolve_precision
from ..disk import write_text
from ..methods import Method
from ..places import portable, with_absolute_paths
from ..processes import broadcast_object, is_main, restarts
from ..recipe import Recipe
from ..run import Run
from ..serial import flattened

RUNS = Path("runs")
"""Where the folders of runs are that ask for none."""
NAMED = 4
"""Settings that a complaint names."""
TRACED = ("patience", "grouped", "deterministic", "on_nan", "channels_last", "compile")
"""Settings of the runtime that leave a trace in a result, in rounding or random numbers, beside what `_traces` has."""
WORDS = {"labeled": "labelled images", "unlabeled": "unlabelled images", "val": "validation images"}


def find_run(recipe: Recipe) -> Run | None:
    """The run that a recipe goes on with, for these processes alone; None where it starts a new one. Raises UsageError
    where there is none to go on with."""
    if not broadcast_object(recipe.runtime.resume or _restarted(recipe)):
        return None
    folder = recipe.runtime.out
    if folder is None:
        run = Run.unfinished(RUNS, recipe.name)
    elif (Path(folder) / "recipe.json").exists():
        run = Run.open(Path(folder))
    else:
        raise UsageError(f"--resume: no run has begun in {folder}; start it without --resume, or pass its --out")
    run = Run(broadcast_object(run.folder))
    if run.finished:
        raise UsageError(
            f"--resume: {run.folder} is finished; choose another --out to train again, from its weights with --init "
            f"{shlex.quote(str(run.folder))}"
        )
    if is_main():
        run.lock()
    return run


def _restarted(recipe: Recipe) -> bool:
    """Whether torchrun or SLURM has begun the run before, with the same arguments. Raises UsageError where nobody can
    tell."""
    if not restarts() and not recipe.runtime.requeue:
        return False
    if recipe.runtime.out is None:
        raise UsageError("--out: pass a folder, in which a run that is started anew goes on")
    return (Path(recipe.runtime.out) / "recipe.json").exists()


def require_same_recipe(run: Run, recipe: Recipe, *, fresh: bool) -> None:
    """Raises UsageError where the run began with another recipe; fresh: or with other weights."""
    recipes = (portable(with_absolute_paths(of)) for of in (run.recipe, recipe))
    before, now = (of.decisive(fresh=fresh) for of in recipes)
    require_same_settings(run, before, now, "--resume")


def changed_runtime(run: Run, recipe: Recipe) -> str | None:
    """What a run does otherwise from here on; None where nothing changes."""
    changed = _changes(_traces(run.recipe), _traces(recipe))
    return f"from here on with other settings than it began with: {some_of(changed, NAMED)}" if changed else None


def how_to_go_on(run: Run, method: Method) -> str:
    """What to do about a run that was stopped, in words."""
    folder = run.folder if run.folder.name != str(run.folder) else f"./{run.folder}"  # no recipe's name
    out = shlex.quote(str(folder))
    if of_user(method):
        return f"go on by its script and --out {out} --resume"
    return f"go on by `semiseg train {out} --resume`"


def of_user(method: Method) -> bool:
    """Whether a method is not one of semiseg's."""
    return not type(method).__module__.startswith("semiseg.")


def keep_code(run: Run, method: Method, say: Say) -> None:
    """Keeps the file of a method that is not semiseg's as method.py in the run's folder; says where a run that goes on
    began with another one."""
    if not of_user(method):
        return
    try:
        code = Path(inspect.getsourcefile(type(method)) or "").read_text(encoding="utf-8")
    except (TypeError, OSError):  # of a prompt, or a notebook
        return
    kept = run.folder / "method.py"
    if not kept.exists():
        write_text(kept, code)
    elif kept.read_text(encoding="utf-8") != code:
        say(f"warning: the code of the method {method.name} is not that with which the run began, {kept}")


def _traces(recipe: Recipe) -> dict[str, Any]:
    """What of a runtime leaves a trace in a result, whatever it was said by."""
    runtime = recipe.runtime
    found: dict[str, Any] = {"eval_every": recipe.steps_between_evaluations()}
    try:
        device = resolve_device(runtime.device)
        found |= {"device": device.type, "precision": resolve_precision(runtime.precision, device).name}
    except UsageError:  # of another machine
        found |= {"device": runtime.device, "precision": runtime.precision}
    found |= {"backend": same_windows_as(runtime.backend, found["device"])}
    return found | {name: getattr(runtime, name) for name in TRACED}


def require_same_settings(run: Run, before: dict[str, Any], now: dict[str, Any], flag: str) -> None:
    """Raises UsageError, which begins with `flag` and names the first few, where settings are not those with which the
    run began."""
    if changed := _changes(flattened(before), flattened(now)):
        raise UsageError(
            f"{flag}: {run.folder} began with other settings: {some_of(changed, NAMED)}; ask for the same, or choose "
            f"another folder (--init {shlex.quote(str(run.folder))} begins there with its weights)"
        )


def _changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {was.get(name)} and is {now.get(name)} now"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]


def identity(data: Data) -> dict[str, list[str]]:
    """What of the data must not change when a run goes on, besides what its files hold; order counts."""
    return {
        "labeled": list(data.split.labeled),
        "unlabeled": list(data.split.unlabeled),
        "val": [record.id for record in data.val],
        "classes": list(data.dataset.classes),
    }


def split_record(data: Data) -> dict[str, Any]:
    """What a run's split.json holds."""
    seen = {"class_pct": data.class_pct(), "contents": data.contents(), "pictures": data.pictures()}
    return asdict(data.split) | identity(data) | seen


def require_same_data(run: Run, recipe: Recipe, data: Data) -> None:
    """Raises UsageError where the data is not that with which the run began."""
    before = run.split
    for name, now in identity(data).items():
        was = list(before[name])
        unused = name == "unlabeled" and not recipe.views.windows
        if was == now or unused:
            continue
        gone, new = ([one for one in these if one not in those] for these, those in ((was, now), (now, was)))
        told = (("gone", gone), ("new", new))
        changed = [f"{len(names)} are {how}, {names[0]} for one" for how, names in told if names]
        raise UsageError(
            f"{run.folder}: the {WORDS.get(name, name)} are not those with which it began "
            f"({', '.join(changed) or 'their order is another'}); restore the data, or start a new run"
        )
    held = before["contents"]
    for name, holds in data.contents().items():
        unused = name == "unlabeled" and not recipe.views.windows
        if held[name] != holds and not unused:
            masks, lists = ("", "") if name == "unlabeled" else (" or their masks", " and its class list")
            raise UsageError(
                f"{run.folder}: files of the {WORDS[name]}{masks} hold other than when it began; restore the data"
                f"{lists}, or start a new run"
            )
