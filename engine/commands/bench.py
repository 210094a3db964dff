"""`semiseg bench`: the benchmarks of a source checkout, each in a process of its own, with flags of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

from ...pipelines.errors import UsageError
from ..child import PYTHON
from ..flags import Told
from .options import called

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAMS = ("loader", "step", "waterfall", "save")
"""Benchmarks that are no kernel's."""


def run(arguments: list[str]) -> None:
    """`semiseg bench ARGUMENTS`. Exits as the benchmark does, where that is not with 0. Raises UsageError."""
    if not FOLDER.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    if "--quick" in arguments:
        start("quick.py", *(argument for argument in arguments if argument != "--quick"))
    elif arguments and not arguments[0].startswith("-"):
        bench_one(*arguments)
    else:
        called(bench_all, arguments, "semiseg bench")


def bench_all(data: Told[Path | None] = None, sizes: Literal["default", "all", "tiny"] = "default") -> None:
    """Run the benchmarks of the loader, of the step and of the kernels.

    By name, `semiseg bench loader`, step, waterfall and save have flags of their own (--help lists them); kernels, or
    one kernel's name, takes pytest's. `semiseg bench --quick` measures the parts of a training run, says what holds it
    up and which flag to change; `semiseg bench compare BASE NEW` compares two results of --json.

    Args:
        data: Root of Pascal VOC (default: the embedded data set, and no step).
        sizes: Of the kernels, what suits the device, or all; of tiny ones launches and allocations are counted, and of
            all benchmarks these alone run.
    """
    photographs = ("--data", str(data)) if data else ()
    if sizes != "tiny":
        bench_one("loader", *photographs)
        if data:
            bench_one("step", *photographs)
    bench_one("kernels", "--sizes", sizes)


def bench_one(name: str, *flags: str) -> None:
    """The benchmark of that name, with its flags. Raises UsageError where there is none."""
    kernels = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    kernels = [kernel for kernel in kernels if kernel not in PROGRAMS]
    if name == "compare":
        start("compare.py", *flags)
    elif name in PROGRAMS:
        start(f"bench_{name}.py", *flags)
    elif name in ("kernels", *kernels):
        chosen = kernels if name == "kernels" else [name]
        start("-m", "pytest", "-q", *(str(FOLDER / f"bench_{kernel}.py") for kernel in chosen), *flags)
    else:
        choices = ", ".join((*PROGRAMS, "kernels", "compare", *kernels))
        raise UsageError(f"bench: there is no {name!r}; choose {choices}")


def start(program: str, *arguments: str) -> None:
    """Runs a program of the folder, or a module (`-m`), and exits with its code where that is not 0."""
    command = [program] if program.startswith("-") else [str(FOLDER / program)]
    if code := subprocess.run([*PYTHON, *command, *arguments]).returncode:
        sys.exit(code)
