"""`semiseg bench`: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import tyro

from ...pipelines.datasets import shapes
from ...pipelines.errors import UsageError
from ..child import PYTHON

HEEDED = {
    "all": "data rounds sizes compiled",
    "loader": "data rounds json results",
    "step": "data rounds compiled method backbone crop batch steps json results",
    "waterfall": "data compiled method backbone crop batch steps json results",
    "save": "rounds backbone crop batch results",
    "kernels": "rounds sizes compiled results",
    "compare": "files",
    "--quick": "recipe data json",
}
"""Flags of each benchmark; a kernel's are those of `kernels`."""
PROGRAMS = ("loader", "step", "waterfall", "save")
"""Benchmarks that are no kernel's."""


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
    network = {"method": method, "backbone": backbone, "crop": crop, "batch": batch, "steps": steps}
    given = {"files": files, "recipe": recipe, "data": data, "rounds": rounds, "compiled": compiled, **network}
    given |= {"sizes": sizes != "default", "json": json, "results": results}
    _require_heeded("kernels" if name in kernels else name, given)
    if name in ("step", "waterfall") and not data:
        raise UsageError(f"bench {name}: say where Pascal VOC is with --data ROOT")
    trained = _flags(**network)
    root, number, output = _flags(data=data), _flags(rounds=rounds), _flags(json=json, results=results)
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
        _run("step", str(scripts["step"]), *root, *number, *trained, *_flags(compile=compiled), *output)
    if name == "waterfall":
        _run("waterfall", str(scripts["waterfall"]), *root, *trained, *_flags(compile=compiled), *output)
    if name == "save":
        _run("save", str(scripts["save"]), *number, *trained, *output)
    if chosen := [str(scripts[one]) for one in kernels if name in ("all", "kernels", one)]:
        _run("kernels", "-m", "pytest", "-q", *chosen, "--sizes", sizes, *number, *_flags(compiled=compiled), *output)


def _require_heeded(name: str, given: dict[str, Any]) -> None:
    """Raises UsageError for a flag that is given and not the benchmark's."""
    for flag, value in given.items():
        if value is None or value is False or value == () or flag in HEEDED[name].split():
            continue
        named = f"names of files ({value[0]})" if flag == "files" else f"--{flag}"
        of = ", ".join(one for one, flags in HEEDED.items() if flag in flags.split())
        cure = "name one of them, or leave it out"
        if name == "--quick" and flag in ("backbone", "crop", "batch", "steps"):  # which recipes have, too
            cure = f'or give it to the recipe: --recipe "NAME {named} ..."'
        raise UsageError(f"bench {name}: {named} is of {of}; {cure}")


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
