"""`semiseg bench`: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import tyro

from ...pipelines.datasets import shapes
from ...pipelines.errors import UsageError
from ..child import PYTHON

TRAINING = ("step", "waterfall")
PROGRAMS = ("loader", *TRAINING, "save")
"""Benchmarks that are no kernel's."""
NETWORK = ("backbone", "crop", "batch", "steps")
"""Flags that recipes have, too."""


def bench(
    what: tyro.conf.Positional[str] = "all",
    files: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    *,
    quick: bool = False,
    recipe: str | None = None,
    data: Path | None = None,
    rounds: int | None = None,
    sizes: Literal["default", "all", "tiny"] = "default",
    compiled: bool = False,
    method: str | None = None,
    backbone: str | None = None,
    crop: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    json: bool = False,
    results: Path | None = None,
) -> None:
    """Run the benchmarks of a source checkout.

    Args:
        what: loader, step, waterfall, save, kernels, one kernel by its name, or all: loader, step and kernels; compare:
            two results of --json, BASE and NEW.
        files: The results to compare.
        quick: Measure the parts of a training run, and say what holds it up and which flag to change.
        recipe: What --quick runs (default: cac_shapes), with flags of its own behind it, in quotes:
            "fixmatch_folder --split draw:1/8@0".
        data: Root of Pascal VOC for loader, step and waterfall (default: the embedded data set, the loader alone), or
            of the data set of --quick.
        rounds: Timed rounds (default: 4 of the loaders, 5 of the step, for kernels as many as fit a fixed time).
        sizes: Of the kernels, what suits the device, or all; of tiny ones launches and allocations are counted, and of
            all benchmarks these alone run.
        compiled: Include torch.compile of kernels on the CPU too, which takes minutes; compile our networks of the
            step, and as its last row those of the waterfall.
        method: What step and waterfall train (default: cac).
        backbone: Of the network of step, waterfall or save.
        crop: Pixels, side of their windows.
        batch: Their labelled images a step.
        steps: Optimizer steps of step and waterfall.
        json: Print one JSON document, which describes the machine as well: --quick, loader, step or waterfall.
        results: CSV file that rows are appended to, of one benchmark or of the kernels.
    """
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    kernels = [name for name in scripts if name not in PROGRAMS]
    choices = ("all", *PROGRAMS, "kernels", "compare", *kernels)
    if what not in choices:
        raise UsageError(f"bench: there is no {what!r}; choose {', '.join(choices)}")
    if quick and what != "all":
        raise UsageError(f"bench: --quick measures a run of a recipe; leave it or {what!r} out")
    name = "--quick" if quick else what
    with_kernels = ("all", "kernels", *kernels)
    _require_heeded(
        name,
        files=(files, ["compare"]),
        recipe=(recipe, ["--quick"]),
        data=(data, ["--quick", "all", "loader", *TRAINING]),
        rounds=(rounds, ["loader", "step", "save", *with_kernels]),
        sizes=(sizes != "default", with_kernels),
        compiled=(compiled, [*TRAINING, *with_kernels]),
        method=(method, TRAINING),
        backbone=(backbone, [*TRAINING, "save"]),
        crop=(crop, [*TRAINING, "save"]),
        batch=(batch, [*TRAINING, "save"]),
        steps=(steps, TRAINING),
        json=(json, ["--quick", "loader", *TRAINING]),
        results=(results, [*PROGRAMS, "kernels", *kernels]),
    )
    if what in TRAINING and not data:
        raise UsageError(f"bench {what}: say where Pascal VOC is with --data ROOT")
    root, number, output = _flags(data=data), _flags(rounds=rounds), _flags(json=json, results=results)
    network = _flags(method=method, backbone=backbone, crop=crop, batch=batch, steps=steps)
    if quick:
        _run("quick", str(folder / "quick.py"), *_flags(recipe=recipe), *root, *_flags(json=json))
    if name == "compare":
        if len(files) != 2:
            raise UsageError("bench compare: name two results of --json, BASE and NEW")
        sys.exit(subprocess.run([*PYTHON, str(folder / "compare.py"), *map(str, files)]).returncode)
    if name == "all" and sizes == "tiny":
        name = "kernels"
    if name in ("all", "loader"):
        _run("loader", str(scripts["loader"]), "--data", str(data or shapes.find().root), *number, *output)
    if name == "step" or (name == "all" and data):
        _run("step", str(scripts["step"]), *root, *number, *network, *_flags(compile=compiled), *output)
    if name == "waterfall":
        _run("waterfall", str(scripts["waterfall"]), *root, *network, *_flags(compile=compiled), *output)
    if name == "save":
        _run("save", str(scripts["save"]), *number, *network, *output)
    if name in with_kernels:
        chosen = [str(scripts[one]) for one in kernels if name in ("all", "kernels", one)]
        _run("kernels", "-m", "pytest", "-q", *chosen, "--sizes", sizes, *number, *_flags(compiled=compiled), *output)


def _require_heeded(benchmark: str, **flags: tuple[Any, Collection[str]]) -> None:
    """Raises UsageError for a flag that is given and not of this benchmark. flags: the value, and which it is of."""
    for flag, (given, of) in flags.items():
        if given is None or given is False or given == () or benchmark in of:
            continue
        named = f"names of files ({given[0]})" if flag == "files" else f"--{flag}"
        shown = ", ".join(one for one in of if one in ("--quick", "all", *PROGRAMS, "kernels", "compare"))
        cure = "name one of them, or leave it out"
        if benchmark == "--quick" and flag in NETWORK:
            cure = f'or give it to the recipe: --recipe "NAME {named} ..."'
        raise UsageError(f"bench {benchmark}: {named} is of {shown}; {cure}")


def _flags(**values: Any) -> list[str]:
    """Those of the values that were given, for a command line."""
    given = {f"--{name}": value for name, value in values.items() if value is not None and value is not False}
    return [word for name, value in given.items() for word in ((name,) if value is True else (name, str(value)))]


def _run(name: str, *arguments: str) -> None:
    """Ends with the program's exit code where a user can mend what it has said."""
    code = subprocess.run([*PYTHON, *arguments]).returncode
    if code == 2:
        sys.exit(2)
    if code:
        raise UsageError(f"bench: the benchmark of the {name} failed; its message stands above")
