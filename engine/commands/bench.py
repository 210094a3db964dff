"""`semiseg bench`: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import tyro

from ...pipelines.datasets import shapes
from ...pipelines.errors import UsageError

TRAINING = ("step", "waterfall")


def bench(
    what: tyro.conf.Positional[str] = "all",
    files: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    *,
    quick: bool = False,
    recipe: str = "cac_shapes",
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
        what: loader, step, waterfall, kernels, one kernel by its name, or all but the waterfall; compare: two results
            of --json, BASE and NEW.
        files: The results to compare.
        quick: Measure the parts of a training run, and say what holds it up and which flag to change.
        recipe: What --quick runs.
        data: Root of Pascal VOC for loader, step and waterfall (default: the embedded data set, the loader alone), or
            of the data set of --quick.
        rounds: Timed rounds (default: 3 of the loaders, for kernels as many as fit a fixed time).
        sizes: Of the kernels, what suits the device, or all; of tiny ones launches and allocations are counted, and of
            all benchmarks these alone run.
        compiled: Include torch.compile on the CPU too, which takes minutes; in the waterfall, as its last row.
        method: What step and waterfall train (default: cac).
        backbone: Of their network.
        crop: Pixels, side of their windows.
        batch: Their labelled images a step.
        steps: Their optimizer steps.
        json: Print one JSON document, which describes the machine as well: --quick, loader, step or waterfall.
        results: CSV file that rows are appended to: loader, step, waterfall or kernels.
    """
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    root = _flags(data=data)
    if quick:
        _run("quick", str(folder / "quick.py"), "--recipe", recipe, *root, *_flags(json=json))
        return
    if what == "compare":
        if len(files) != 2:
            raise UsageError("bench compare: name two results of --json, BASE and NEW")
        sys.exit(subprocess.run([sys.executable, str(folder / "compare.py"), *map(str, files)]).returncode)
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    loader, step, waterfall = (str(scripts.pop(name)) for name in ("loader", "step", "waterfall"))
    if what not in ("all", "loader", "step", "waterfall", "kernels", *scripts):
        names = ", ".join(scripts)
        raise UsageError(f"bench: there is no {what!r}; choose all, loader, step, waterfall, kernels, compare, {names}")
    training = _flags(method=method, backbone=backbone, crop=crop, batch=batch, steps=steps)
    if training and what not in TRAINING:
        raise UsageError(f"bench: {training[0]} is of {' and '.join(TRAINING)}; name one of them, or leave it out")
    if json and what not in ("loader", *TRAINING):
        raise UsageError("bench: --json is of --quick, loader, step and waterfall; name one of them, or leave it out")
    if results and what == "all":
        raise UsageError("bench: --results is one file for one kind of rows; name a benchmark, or leave it out")
    if what in TRAINING and not data:
        raise UsageError(f"bench {what}: say where Pascal VOC is with --data ROOT")
    if what == "all" and sizes == "tiny":
        what = "kernels"
    number, output = _flags(rounds=rounds), _flags(json=json, results=results)
    if what in ("all", "loader"):
        _run("loader", loader, "--data", str(data or shapes.find().root), *number, *output)
    if what == "step" or (what == "all" and data):
        _run("step", step, *root, *number, *training, *output)
    if what == "waterfall":
        _run("waterfall", waterfall, *root, *training, *_flags(compile=compiled), *output)
    if what not in ("loader", *TRAINING):
        chosen = [str(path) for name, path in scripts.items() if what in ("all", "kernels", name)]
        _run("kernels", "-m", "pytest", "-q", *chosen, "--sizes", sizes, *number, *_flags(compiled=compiled), *output)


def _flags(**values: Any) -> list[str]:
    """Those of the values that were given, for a command line."""
    given = {f"--{name}": value for name, value in values.items() if value is not None and value is not False}
    return [word for name, value in given.items() for word in ((name,) if value is True else (name, str(value)))]


def _run(name: str, *arguments: str) -> None:
    """Ends with the program's exit code where a user can mend what it has said."""
    code = subprocess.run([sys.executable, *arguments]).returncode
    if code == 2:
        sys.exit(2)
    if code:
        raise UsageError(f"bench: the benchmark of the {name} failed; its message stands above")
