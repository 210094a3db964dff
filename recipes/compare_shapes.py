"""The four methods on the embedded data set at equal steps: one table of mIoU, mean and spread over seeds.

Supervised, CAC, CPS and CutMix-CPS at 1/16 of the labels, and supervised at all labels; no method is tuned by itself.
`--smoke` is the short form that `make demo` runs. Finished runs are kept, so an interrupted comparison goes on.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from semiseg.engine import console
from semiseg.engine.events import Event
from semiseg.pipelines.datasets import shapes

ROWS = [("supervised", "1/16"), ("cac", "1/16"), ("cps", "1/16"), ("cutmix_cps", "1/16"), ("supervised", "all")]
COLUMNS = ["method", "labelled images", "steps", "mIoU best %", "mIoU last %", "images/s", "data wait %"]


@dataclass(kw_only=True)
class Compare:
    """Trains the four methods on shapes and prints one table."""

    steps: int = 900
    """Optimizer steps of every run."""
    seeds: int = 3
    """Seeds; each draws its own labelled images."""
    out: Path = Path("runs/compare_shapes")
    """Folder of the runs and of table.md."""
    jobs: int = 0
    """Runs at a time (0: one a core)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on processors that have it, where it is faster; fp32 on others."""
    smoke: bool = False
    """One seed and few steps: shows in minutes that everything works, not which method is better."""
    json: bool = False
    """Print the table as one JSON document; everything else goes to standard error."""


def main() -> None:
    options = tyro.cli(Compare, description=__doc__)
    if options.smoke:
        options.steps, options.seeds = 100, 1
        options.out = options.out.with_name(f"{options.out.name}_smoke")
    console.use(stderr=options.json)
    rows = ROWS[:4] if options.smoke else ROWS
    began = time.perf_counter()
    shapes.find()
    results = train_all([(method, share, seed) for seed in range(options.seeds) for method, share in rows], options)
    lines = [
        summarise([results[method, share, seed] for seed in range(options.seeds)], method) for method, share in rows
    ]
    console.table(f"shapes, {options.seeds} seed(s)", COLUMNS, lines)
    (options.out / "table.md").write_text(markdown(lines))
    console.say(f"{time.perf_counter() - began:.0f} s; table: {options.out / 'table.md'}")
    for method, share in rows:
        console.say(f"report of {method}: {folder(options, method, share, 0) / 'report.html'}")
    if options.json:
        print(json.dumps([dict(zip(COLUMNS, line, strict=True)) for line in lines]))


def train_all(runs: list[tuple[str, str, int]], options: Compare) -> dict[tuple[str, str, int], dict]:
    """Every run's result.json; runs that are not finished are trained, each in a process of its own."""
    options.out.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    jobs = options.jobs or cores
    environment = os.environ | {"OMP_NUM_THREADS": str(max(cores // jobs, 1))}
    results = {}
    with ThreadPoolExecutor(jobs) as pool, console.listening() as listener:
        tasks = {pool.submit(train, *run, options, environment): run for run in runs}
        for task in as_completed(tasks):
            method, share, seed = run = tasks[task]
            if task.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            results[run] = task.result()
            listener(Event("progress", "training", len(results), len(runs)))
            last, seconds = 100 * results[run]["last"], results[run]["seconds"]
            console.say(f"{method} at {share} labels, seed {seed}: mIoU last {last:.2f} %  ({seconds:.0f} s)")
    return results


def train(method: str, share: str, seed: int, options: Compare, environment: dict[str, str]) -> dict:
    out = folder(options, method, share, seed)
    result = out / "result.json"
    if not result.exists():
        split = "all" if share == "all" else f"draw:{share}@{seed}"
        arguments = ["--steps", options.steps, "--split", split, "--seed", seed, "--out", out]
        arguments += ["--precision", options.precision]
        arguments += ["--eval-every", max(options.steps // 5, 1)]
        if (out / "recipe.json").exists():
            arguments.append("--resume")
        script = Path(__file__).with_name(f"{method}_shapes.py")
        log = out.with_suffix(".log")
        with log.open("w") as file:
            command = [sys.executable, str(script), *map(str, arguments)]
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode:
                raise SystemExit(f"{method} at {share} labels, seed {seed} failed:\n{log.read_text()[-2000:]}")
    return json.loads(result.read_text())


def folder(options: Compare, method: str, share: str, seed: int) -> Path:
    return options.out / f"{method}-{share.replace('/', 'of')}-seed{seed}-{options.steps}-{options.precision}"


def summarise(results: list[dict], method: str) -> list[str]:
    def shown(name: str, scale: float = 1, spread: bool = False) -> str:
        values = [scale * result[name] for result in results]
        deviation = f" ± {statistics.stdev(values):.2f}" if spread and len(values) > 1 else ""
        return f"{statistics.mean(values):.{2 if spread else 1}f}{deviation}"

    best, last = shown("best", 100, spread=True), shown("last", 100, spread=True)
    labeled, steps = f"{results[0]['labeled']}", f"{results[0]['steps']}"
    return [method, labeled, steps, best, last, shown("images_per_s"), shown("data_wait_pct")]


def markdown(lines: list[list[str]]) -> str:
    rows = [COLUMNS, ["---"] + ["---:"] * (len(COLUMNS) - 1), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
