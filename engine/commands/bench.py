"""`semiseg bench`: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import tyro

from ...pipelines.datasets import shapes
from ...pipelines.errors import UsageError


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
) -> None:
    """Run the benchmarks of a source checkout.

    Args:
        what: loader, step, kernels, one kernel by its name, or all; compare: two results of --json, BASE and NEW.
        files: The results to compare.
        quick: Measure the parts of a training run, and say what holds it up and which flag to change.
        recipe: What --quick runs.
        data: Root of Pascal VOC for loader and step (default: the embedded data set, the loader alone), or of the data
            set of --quick.
        rounds: Timed rounds (default: 3 of the loaders, for kernels as many as fit a fixed time).
        sizes: Of the kernels, what suits the device, or all; of tiny ones launches and allocations are counted, and of
            all benchmarks these alone run.
        compiled: Include torch.compile on the CPU too, which takes minutes.
    """
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    root = [] if data is None else ["--data", str(data)]
    if quick:
        _run("quick", str(folder / "quick.py"), "--recipe", recipe, *root)
        return
    if what == "compare":
        if len(files) != 2:
            raise UsageError("bench compare: name two results of --json, BASE and NEW")
        sys.exit(subprocess.run([sys.executable, str(folder / "compare.py"), *map(str, files)]).returncode)
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    loader, step = scripts.pop("loader"), scripts.pop("step")
    if what not in ("all", "loader", "step", "kernels", *scripts):
        names = ", ".join(scripts)
        raise UsageError(f"bench: there is no {what!r}; choose all, loader, step, kernels, compare, {names}")
    if what == "all" and sizes == "tiny":
        what = "kernels"
    number = [] if rounds is None else ["--rounds", str(rounds)]
    if what in ("all", "loader"):
        _run("loader", str(loader), "--data", str(data or shapes.find().root), *number)
    if what == "step" or (what == "all" and data):
        if not data:
            raise UsageError("bench step: say where Pascal VOC is with --data ROOT")
        _run("step", str(step), *root, *number)
    if what not in ("loader", "step"):
        chosen = [str(path) for name, path in scripts.items() if what in ("all", "kernels", name)]
        options = ["--sizes", sizes, *number, *(["--compiled"] if compiled else [])]
        _run("kernels", "-m", "pytest", "-q", *chosen, *options)


def _run(name: str, *arguments: str) -> None:
    if subprocess.run([sys.executable, *arguments]).returncode:
        raise UsageError(f"bench: the benchmark of the {name} failed; its message stands above")
