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
    /,
    *,
    data: Path | None = None,
    rounds: int | None = None,
    sizes: Literal["default", "all", "tiny"] = "default",
    compiled: bool = False,
) -> None:
    """Run the benchmarks of a source checkout.

    Args:
        what: loader, kernels, one kernel by its name, or all.
        data: Root of Pascal VOC for the loader (default: the embedded data set).
        rounds: Timed rounds (default: 3 of the loaders, for kernels as many as fit a fixed time).
        sizes: Of the kernels: what suits the device, all, or tiny ones to see that everything works.
        compiled: Include torch.compile on the CPU too, which takes minutes.
    """
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    loader = scripts.pop("loader")
    if what not in ("all", "loader", "kernels", *scripts):
        raise UsageError(f"bench: there is no {what!r}; choose all, loader, kernels, {', '.join(scripts)}")
    number = [] if rounds is None else ["--rounds", str(rounds)]
    if what in ("all", "loader"):
        _run_benchmark("loader", str(loader), "--data", str(data or shapes.find().root), *number)
    if what != "loader":
        files = [str(path) for name, path in scripts.items() if what in ("all", "kernels", name)]
        options = ["--sizes", sizes, *number, *(["--compiled"] if compiled else [])]
        _run_benchmark("kernels", "-m", "pytest", "-q", *files, *options)


def _run_benchmark(name: str, *arguments: str) -> None:
    if subprocess.run([sys.executable, *arguments]).returncode:
        raise UsageError(f"bench: the benchmark of the {name} failed; its message stands above")
