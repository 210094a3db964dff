"""The runs that a comparison is made of, and what must hold before the first one starts."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...pipelines.datasets.splits import resolve_split
from ...pipelines.errors import UsageError
from ..checkpoint import checkpoint_file
from ..data import Data, prepare_data, taught_before, taught_copies
from ..disk import create_folder, locked
from ..events import Listener, note, silent, tell
from ..places import portable, with_absolute_paths
from ..recipe import Recipe
from ..run import Run, uses_of
from ..serial import flattened, plain
from ..training.build import open_method, planner_of
from ..training.resume import require_same_data, require_same_settings

ALIKE = ("precision", "eval_every", "device", "deterministic")
"""Settings of the runtime that must be the same in all calls for one comparison."""
OWN_FLAGS = "flags of one recipe alone stand behind its name, in quotes with it"
LONGEST, SHOWN = 200, 40
"""Bytes of a folder's name, beside which files of longer names lie; characters of a longer one that it keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run of a comparison."""

    method: str
    """What was asked for: the name of a recipe, and flags of its own behind it."""
    share: str
    """Which images are labelled, as it was asked for."""
    seed: int
    recipe: Recipe
    """With the split, the seed and the folder of this run."""
    command: tuple[str, ...]
    """The words behind `semiseg` that train it."""

    @property
    def folder(self) -> Path:
        assert self.recipe.runtime.out is not None
        return Path(self.recipe.runtime.out)

    @property
    def run(self) -> Run:
        """May not have begun."""
        return Run(self.folder)

    @property
    def begun(self) -> bool:
        return (self.folder / "recipe.json").exists()

    def __str__(self) -> str:
        return f"{self.method} at {self.share} labels, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs in one folder. Those of one share and seed have the same labelled images."""

    out: Path
    entries: tuple[Entry, ...]
    """In the order in which they are made."""
    baseline: str
    """The method that the others are compared with."""

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(entry.method for entry in self.entries))

    @property
    def shares(self) -> list[str]:
        return list(dict.fromkeys(entry.share for entry in self.entries))

    @property
    def seeds(self) -> list[int]:
        return sorted({entry.seed for entry in self.entries})

    @property
    def rivals(self) -> list[str]:
        """All methods but the baseline."""
        return [method for method in self.methods if method != self.baseline]

    @property
    def judged(self) -> str:
        """How the methods are judged: in one way, or who in which."""
        by: dict[str, dict[str, None]] = {}
        for entry in self.entries:
            by.setdefault(str(entry.recipe.protocol()), {})[entry.method] = None
        return next(iter(by)) if len(by) == 1 else "; ".join(f"{', '.join(who)} by {how}" for how, who in by.items())

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keeps the folder for this process and for those that it hands the file's number to. Raises UsageError where
        others have it."""
        create_folder(self.out)
        file = locked(self.out / "lock")
        if file is None:
            raise UsageError(
                f"--out: another comparison is at work in {self.out}, or runs of one that was killed are ending; wait "
                "for it, or choose another folder"
            )
        with file:
            yield file.fileno()


def split_of(share: str, seed: int) -> str:
    """A share (1/16) or a count (30) is drawn anew for each seed; any other split is the same for all."""
    return f"draw:{share}@{seed}" if re.fullmatch(r"[\d./]+", share) else share


def folder_of(out: Path, method: str, share: str, seed: int) -> Path:
    """Where a run of a comparison lies. A checksum stands for the end of a name that no file system takes."""
    words = (method, share.replace("/", "of") if split_of(share, seed) != share else share, f"seed{seed}")
    name = "-".join(re.sub(r"[^\w.]+", "_", word).strip("_") for word in words)
    if len(name.encode()) > LONGEST:
        name = f"{name[:SHOWN]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return out / name


def prepare_comparison(comparison: Comparison, on_event: Listener = silent) -> tuple[Comparison, Data]:
    """The comparison without runs that would have nothing to learn from (methods for unlabelled images where all are
    labelled), when all that can be said against it is said; and its data, with the first run's split.

    Raises UsageError, before anything is trained: for a recipe that makes no sense, for recipes that see different
    data, for a split that cannot be, and for a folder whose runs were begun with other settings or other data.
    """
    entries = comparison.entries
    _require_sense(entries)
    data = prepare_data(entries[0].recipe, on_event)
    if data.dataset.held_out and len({_start(entry) for entry in entries}) > 1:
        raise UsageError(
            "--init: which images are held out for validation depends on the weights that a recipe begins with; list "
            "them in val.txt (--files.val-list), so that all are judged by the same"
        )
    of_split: dict[str, Data] = {}
    for entry in entries:
        if (spec := entry.recipe.split) not in of_split:
            of_split[spec] = replace(data, split=resolve_split(spec, data.dataset, entry.recipe.runtime.lists))
            if spec != entries[0].recipe.split:  # of the first all has been said
                tell(f"labels {entry.share}", taught_copies(of_split[spec]), on_event)

    def is_idle(entry: Entry) -> bool:
        return bool(entry.recipe.views.windows) and not of_split[entry.recipe.split].split.unlabeled

    possible = [entry for entry in entries if not is_idle(entry)]
    idle = [entry for entry in entries if is_idle(entry)]
    built: set[str] = set()
    for entry in possible:
        own = of_split[entry.recipe.split]
        _require_same(entry, own)
        if not entry.begun:
            _require_start(entry, own, fresh=entry.method not in built)
            built.add(entry.method)
    for share in dict.fromkeys(entry.share for entry in idle):
        methods = dict.fromkeys(entry.method for entry in idle if entry.share == share)
        note(f"labels {share}: nothing is unlabelled; left out: {', '.join(methods)}", on_event)
    if not possible:
        raise UsageError("--shares: nothing is unlabelled; pass a smaller share")
    _require_different_labels(possible, of_split)
    for init in {_start(entry): None for entry in possible if not entry.begun}:
        if init not in (None, _start(entries[0])):
            tell("--init", taught_before(data.manifest, uses_of(checkpoint_file(init))), on_event)
    comparison = replace(comparison, entries=tuple(possible))
    if len({entry.recipe.protocol() for entry in possible}) > 1:
        note(f"warning: the methods are not judged alike: {comparison.judged}", on_event)
    return comparison, data


def _start(entry: Entry) -> Path | None:
    """The network that a run begins with, where that is not the weights of an encoder."""
    return entry.recipe.init and Path(entry.recipe.init).expanduser().absolute()


def _require_different_labels(entries: Sequence[Entry], of_split: Mapping[str, Data]) -> None:
    """Raises UsageError where two shares take the same images as labelled, in every draw."""
    drawn: dict[str, dict[int, tuple[tuple[str, ...], ...]]] = {}
    for entry in entries:
        split = of_split[entry.recipe.split].split
        drawn.setdefault(entry.share, {})[entry.seed] = (split.labeled, split.unlabeled)
    for one, other in itertools.combinations(drawn, 2):
        if drawn[one] == drawn[other]:
            raise UsageError(f"--shares: {one} and {other} label the same images; pass one of them")


def _require_sense(entries: tuple[Entry, ...]) -> None:
    """Raises UsageError for what needs no data to be seen."""
    if len({entry.folder for entry in entries}) < len(entries):
        raise UsageError("compare: two of the recipes or of the shares would have one folder; name each once")
    for entry in entries:
        try:
            entry.recipe.check()
        except UsageError as error:
            own = f"; {OWN_FLAGS}" if str(error).startswith("--method.") else ""
            raise UsageError(f"{entry.method}: {error}{own}") from None
        if entry.recipe.runtime.patience is not None:
            raise UsageError(
                f"{entry.method}: --patience: a run that may end early is not compared with others; leave it out, or "
                "pass --patience None"
            )
    first = entries[0]
    for entry in entries:
        theirs = _source(entry.recipe)
        for name, one in _source(first.recipe).items():
            if (other := theirs[name]) != one:
                raise UsageError(
                    f"compare: {name} is {one} for {first.method} and {other} for {entry.method}; compare recipes for "
                    "one data set"
                )


def _source(recipe: Recipe) -> dict[str, object]:
    recipe = with_absolute_paths(recipe)
    return {"layout": recipe.layout, "data": recipe.runtime.data} | flattened({"files": plain(recipe.files)})


def _require_same(entry: Entry, data: Data) -> None:
    """Raises UsageError where a run was begun with other settings, or with other data."""
    if not entry.begun:
        return
    run = entry.run
    require_same_settings(run, _settings(run.recipe), _settings(entry.recipe), "--out")
    require_same_data(run, entry.recipe, data)


def _require_start(entry: Entry, data: Data, *, fresh: bool) -> None:
    """Raises UsageError where a run could not begin: for windows that cannot be drawn and, if `fresh`, for weights that
    are not to be had or do not fit."""
    try:
        planner_of(entry.recipe, data)
        if fresh:
            open_method(entry.recipe, data, torch.device("cpu"), fresh=True)
    except UsageError as error:
        raise UsageError(f"{entry.method}: {error}") from None


def _settings(recipe: Recipe) -> dict[str, object]:
    """Those that a row of results hangs on."""
    runtime = {name: getattr(recipe.runtime, name) for name in ALIKE}
    return runtime | portable(with_absolute_paths(recipe)).decisive(fresh=True)
