"""`semiseg compare RECIPE …`."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...pipelines.errors import UsageError
from .. import console
from ..catalogue import find_recipe, recipes
from ..comparison.entries import OWN_FLAGS, Comparison, Entry, folder_of, prepare_comparison, split_of
from ..comparison.page import write_page
from ..comparison.results import Finished, finished_of, higher_beside, lines_of, markdown, plain_lines, table, write_csv
from ..comparison.workers import RunFailed, places, train_all
from ..device import resolve_device
from ..disk import write_text
from ..evaluation.scores import percent
from ..flags import Told
from ..recipe import Recipe
from .options import FLAG_STYLE, emit, parsed
from .train import parse, recipe_words

OURS = {
    "--split": "pass --shares",
    "--seed": "pass --seeds",
    "--resume": "the same command goes on by itself",
    **dict.fromkeys(("--out", "--dry-run", "--json"), "pass it for all runs together"),
    "--verify-resume": "try it by `semiseg train`",
    "--requeue": "exit code 75 says that the job is to be asked for again",
}
"""Flags of `train` that a comparison sets, or leaves out, and what stands in for each."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train several recipes on the same labelled images and compare them: a table, CSV and a page.

    First come the recipes, the baseline before the others; one with flags of its own is one word: "cac_voc --lr 0.02".
    All flags of `semiseg train` may follow, for every run. Finished runs are kept, so that the same command goes on
    where it was, and one with more recipes, shares or seeds adds to it.
    """

    shares: tuple[str, ...] = ("1/8",)
    """Labelled shares (1/16) or counts (30), drawn anew for each seed; or what --split takes: all, names of published
    lists, list files. Where nothing is unlabelled, only methods without unlabelled images are trained."""
    seeds: int = 3
    """Number of seeds: 0, 1, …"""
    baseline: Told[str | None] = None
    """The recipe that gains are counted from (default: the first)."""
    out: Path = Path("runs/compare")
    """Folder of the runs, of results.csv, table.md and comparison.html."""
    jobs: int = 0
    """Runs at a time (0: one per GPU, or per core without GPUs)."""
    dry_run: bool = False
    """Print the runs, and stop."""
    json: bool = False
    """Print one JSON document; everything else goes to standard error."""


def compare(arguments: list[str]) -> None:
    """Compare recipes, labelled shares and seeds: `semiseg compare ARGUMENTS`. Raises UsageError, RunFailed at the
    end where a run broke down, and Stopped after a signal."""
    methods = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    rest = arguments[len(methods) :]
    usage = {"prog": "semiseg compare RECIPE [RECIPE …]", "config": FLAG_STYLE}
    options, flags = parsed(Options, rest, "semiseg compare", return_unknown_args=True, **usage)
    comparison = planned(methods, options, flags)
    with console.listening() as listener:
        comparison, _ = prepare_comparison(comparison, listener)
    if options.dry_run:
        show_plan(comparison, options)
        return
    recipe = comparison.entries[0].recipe
    device = resolve_device(recipe.runtime.device)
    waiting = sum(not entry.run.finished for entry in comparison.entries)
    where = places(recipe.runtime.device, device.type, options.jobs, waiting)
    with comparison.lock() as lock, console.listening() as listener:
        if waiting:
            cost = f"{len(where)} at a time, with {where[0].threads} thread(s) each"
            console.say(f"{waiting} of {len(comparison.entries)} runs to go, {cost}, in {options.out}")
        number = itertools.count(len(comparison.entries) - waiting + 1)
        try:
            train_all(comparison.entries, where, lock, lambda entry: record(comparison, entry, next(number)), listener)
        except (UsageError, RunFailed) as error:
            if any(entry.run.finished for entry in comparison.entries):
                show(comparison, options)
            elif options.json and isinstance(error, RunFailed):
                emit({"table": [], "out": str(options.out), "missing": missing(comparison)})
            raise
        show(comparison, options)


def planned(methods: Sequence[str], options: Options, flags: Sequence[str]) -> Comparison:
    """The runs that are asked for. Raises UsageError for recipes and flags that are none."""
    if not methods:
        raise UsageError(f"compare: name recipes, the baseline first: {', '.join(recipes())}")
    if options.seeds < 1 or options.jobs < 0 or not options.shares:
        raise UsageError("compare: --seeds must be at least 1, --jobs at least 0, and --shares name one")
    if (options.out / "recipe.json").exists():
        raise UsageError(f"--out: {options.out} is the folder of a run: choose another folder")
    baseline = methods[0] if options.baseline is None else options.baseline
    if baseline not in methods:
        raise UsageError(f"--baseline: {baseline!r} is none of the compared {', '.join(methods)}")
    read = {(method, share): _read(method, flags, share) for share in options.shares for method in methods}
    entries = []
    for seed in range(options.seeds):
        for (method, share), (recipe, command) in read.items():
            own = {"split": split_of(share, seed), "seed": seed, "out": folder_of(options.out, method, share, seed)}
            said = [word for name, value in own.items() for word in (f"--{name}", str(value))]
            entries.append(
                Entry(method=method, share=share, seed=seed, recipe=recipe.replace(**own), command=(*command, *said))
            )
    return Comparison(out=options.out, entries=tuple(entries), baseline=baseline)


def record(comparison: Comparison, entry: Entry, number: int) -> None:
    """Says that a run is finished, and writes down what there is so far. number: how many are finished with it."""
    write_csv(comparison.out / "results.csv", finished_of(comparison))
    result = Finished.read(entry).result
    console.say(
        f"{entry}: mIoU best {percent(result['best'])} %, last {percent(result['last'])} %  "
        f"({result['seconds']:.0f} s; run {number} of {len(comparison.entries)})"
    )


def show(comparison: Comparison, options: Options) -> None:
    """Prints the table and where the page is, which are written anew."""
    finished = finished_of(comparison)
    lines = lines_of(comparison, finished)
    write_csv(comparison.out / "results.csv", finished)
    columns, rows = table(lines)
    write_text(comparison.out / "table.md", markdown(columns, rows))
    console.table("mean ± standard deviation over the seeds", columns, rows)
    for told in higher_beside(lines):
        console.say(told)
    if others := _others(comparison):
        console.say(f"{len(others)} more finished runs in {comparison.out} are not asked for here, {others[0]} for one")
    page = write_page(comparison, finished)
    console.say(f"page: {page}")
    if options.json:
        results = comparison.out / "results.csv"
        where = {"page": str(page), "results": str(results), "out": str(comparison.out)}
        emit({"table": plain_lines(lines)} | where | {"missing": missing(comparison)})


def _others(comparison: Comparison) -> list[str]:
    """The finished runs of earlier calls that are not in this one, by their folders' names."""
    own = {entry.folder.name for entry in comparison.entries}
    return sorted(path.parent.name for path in comparison.out.glob("*/result.json") if path.parent.name not in own)


def missing(comparison: Comparison) -> list[str]:
    """The folders of the runs that are not finished."""
    return [str(entry.folder) for entry in comparison.entries if not entry.run.finished]


def show_plan(comparison: Comparison, options: Options) -> None:
    """Prints the runs, and how far each is."""
    states = ["finished" if entry.run.finished else "begun" if entry.begun else "to do" for entry in comparison.entries]
    rows = [
        [str(entry), state, f"{entry.recipe.steps:,}", entry.recipe.split]
        for entry, state in zip(comparison.entries, states)
    ]
    console.table(f"{len(rows)} runs in {comparison.out}", ["run", "state", "steps", "split"], rows)
    if options.json:
        emit([{"command": shlex.join(("semiseg", *e.command)), "state": s} for e, s in zip(comparison.entries, states)])


def _read(method: str, flags: Sequence[str], share: str) -> tuple[Recipe, list[str]]:
    """A method's recipe at a share, of its first seed, and the words that train it. Raises UsageError."""
    name, own = recipe_words(method, "compare")
    words = [*flags, *own]
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag in OURS:
            raise UsageError(f"{flag}: a comparison sets it; {OURS[flag]}")
    build = find_recipe(name)
    said = [*words, "--split", split_of(share, 0)]
    command, _ = parse(build, said, OWN_FLAGS)
    return command.recipe, ["train", name, *words]
