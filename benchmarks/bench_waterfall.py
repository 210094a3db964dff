"""From the published way to ours, one technique a row: what each is worth, and whether it trains alike.

    python benchmarks/bench_waterfall.py --data VOC_ROOT [--method cac] [--backbone resnet18] [--crop 320] [--batch 2]
        [--steps 50] [--compile] [--json] [--results FILE]

Each row is a process of its own, and trains the same network from the same weights, without dropout, all rows of CAC's
contrast active. The published way draws its own windows; from the second row on all see the same batches, so that
first losses differ by rounding, and last ones by what that comes to over the steps. Rates, and shares of the time that
is spent waiting for data, are medians over the fifths of the steps but the first; last losses are means of the last
fifth. The share of the roof, a large product of matrices in the same process, counts the products and convolutions of
our step in every row. Rows that --results holds already, of this machine, commit and settings, are not measured again.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import partial
from json import dumps, loads
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

import command
import measurement
import rowfile
import tables
from operator_benchmark import aligned, short
from published_way import METHODS
from semiseg.engine.child import PYTHON
from semiseg.engine.data import prepare_data
from semiseg.engine.device import LOW, Precision, make_current, resolve_device, resolve_precision
from semiseg.engine.environment import environment
from semiseg.engine.models import drop_nothing
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.forecast import forecast
from semiseg.engine.training.meters import Meters
from semiseg.pipelines.cores import cores
from semiseg.pipelines.errors import UsageError, fault_unless, raise_faults
from ways import PILLOW, Training, Way, voc_recipe, waterfall

FIFTHS, LEAST = 5, 25
"""Parts of the steps, and the least number of steps on a GPU, whose graphs are captured within the first part."""
SIDES, PRODUCTS = {"cpu": 1024, "cuda": 8192}, 5
"""Of the matrices whose product is the roof, and how often it is looked for before the steps and after them."""
NUMBERS = (
    "images_per_s", "data_wait_pct", "processor_s_an_image", "memory_gib", "roof_tflops", "joules_an_image",
    "first_loss", "last_loss", "tflop_an_image", "roof_pct",
)  # fmt: skip
"""Columns of a row that are measured."""


def main(
    data: Path,
    method: Literal[tuple(METHODS)] = "cac",
    backbone: str = "resnet18",
    crop: int = 320,
    batch: int = 2,
    steps: int = 50,
    compile: bool = False,
    device: str = "auto",
    threads: int = 0,
    json: bool = False,
    results: Path | None = None,
    load: str = "",
    row: str | None = None,
) -> None:
    """Measure the published way, ours, and all between.

    Args:
        data: any root of Pascal VOC 2012.
        method: what is trained.
        backbone: of the network.
        crop: pixels, side of the windows.
        batch: labelled images a step, and as many unlabelled ones (pairs, mixed images).
        steps: optimizer steps of each row.
        compile: as the last row, compile the networks.
        device: auto, cpu, cuda or cuda:N.
        threads: of the input (0: one a core).
        json: print one JSON document instead of a table.
        results: CSV file that rows are appended to.
        load: what else kept the machine busy, in words, for the rows.
        row: measure this one alone, in this process, and print it as JSON.
    """
    where, threads = resolve_device(device), threads or cores()
    make_current(where)
    least = LEAST if where.type == "cuda" else FIFTHS
    rule = f"must be a multiple of {FIFTHS} and at least {least}"
    raise_faults(fault_unless(steps >= least and steps % FIFTHS == 0, "--steps", rule, steps))
    rowfile.appendable(results)
    recipe = voc_recipe(method, data, str(where), threads, backbone=backbone, crop=crop, batch=batch)
    ways = waterfall(where, resolve_precision("auto", where).name, compile)
    if row is not None:
        raise_faults(fault_unless(row in ways, "--row", f"must be one of {', '.join(ways)}", repr(row)))
        print(dumps(measured(ways[row], recipe, where, steps)))
        return
    settings = {
        "method": method,
        "backbone": backbone,
        "crop": crop,
        "batch": batch,
        "steps": steps,
        "device": str(where),
        "threads": threads,
    }
    prepared = prepare_data(recipe)
    about = measurement.machine(where)
    about |= {"load": load, "network_threads": about["threads"]} | settings | {"images": len(prepared.split.labeled)}
    classes = len(prepared.dataset.classes)
    tflop = forecast(recipe, classes, Precision("fp32", where)).flops / recipe.images_a_step / 1e12
    known, rows = before(results, about), []
    for name, way in ways.items():
        line = known.get(name)
        if line is None:
            line = {"date": measurement.now(), **about, "row": name}
            line |= {"draws": "its own" if way.backend == PILLOW else "planned", "precision": way.precision}
            line |= alone(name, {"data": data, **settings}, compile) | {"tflop_an_image": short(tflop)}
            line["roof_pct"] = short(100 * line["images_per_s"] * tflop / line["roof_tflops"])
            if results:
                rowfile.append([line], results)
        rows.append(line)
        print(f"{name}: {line['images_per_s']} images/s", file=sys.stderr)
    if json:
        print(dumps({"rows": rows, "settings": settings | {"load": load}, "environment": environment()}, indent=1))
        return
    print(*aligned([tables.WATERFALL, *tables.waterfall_lines(rows)]), sep="\n")


def before(results: Path | None, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows by name that were measured before, by this commit and alike in all that is told; none of a checkout that
    differs from its commit."""
    if results is None or not about["commit"] or about["commit"].endswith("-dirty"):
        return {}
    alike = [
        row for row in rowfile.rows_of(results) if all(row.get(name) == str(value) for name, value in about.items())
    ]
    numbers = [{name: float(row[name]) if row[name] else None for name in NUMBERS} for row in alike]
    return {row["row"]: row | about | {"graph": row["graph"] == "True"} | own for row, own in zip(alike, numbers)}


def alone(name: str, options: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """What a process of its own measures of a row."""
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    words += ["--compile"] if compiled else []
    done = subprocess.run([*PYTHON, __file__, "--row", name, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UsageError(f"the row {name!r} failed, its message stands above; --results keeps the rows before it")
    return loads(done.stdout)


def measured(way: Way, recipe: Recipe, device: torch.device, steps: int) -> dict[str, Any]:
    """Rate, wait, memory, roof, energy and losses of a way."""
    roof = highest(way, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    training = Training(way, recipe, prepare_data(recipe), device, partial(print, file=sys.stderr))
    drop_nothing(training.method)
    meters = Meters(recipe, device)
    fifths: list[dict[str, Any]] = []
    spent: list[tuple[float, float | None]] = []
    """Seconds of processors and joules until the end of each fifth."""
    try:
        for number, batch in enumerate(itertools.islice(meters.waited(training.batches), steps)):
            losses = training.step(batch, number)
            if number == 0:
                first_loss = float(losses["loss"])
            meters.add(losses)
            if (number + 1) % (steps // FIFTHS) == 0:
                fifths.append(meters.read(number + 1, recipe.lr))
                spent.append((measurement.processor_seconds(), meters.gpu.joules()))
    finally:
        training.close()
    roof = max(roof, highest(way, device))
    images = recipe.images_a_step * (steps - steps // FIFTHS)
    (seconds, joules), (all_seconds, all_joules) = spent[0], spent[-1]
    return {
        "graph": training.graph,
        "images_per_s": short(median(fifth["images_per_s"] for fifth in fifths[1:])),
        "data_wait_pct": short(median(fifth["data_wait_pct"] for fifth in fifths[1:])),
        "processor_s_an_image": short((all_seconds - seconds) / images),
        "memory_gib": short(fifths[-1]["memory_gib"]),
        "roof_tflops": short(roof),
        "joules_an_image": None if joules is None else short((all_joules - joules) / images),
        "first_loss": round(first_loss, 5),
        "last_loss": round(fifths[-1]["loss"], 5),
    }


def highest(way: Way, device: torch.device) -> float:
    """TFLOP/s of products in a way's precision, the most of several: others may want the cores, too."""
    Precision(way.precision, device).allow_tf32()
    dtype = LOW.get(way.precision, torch.float32)
    return max(measurement.matmul_roof(dtype, device, SIDES[device.type]) for _ in range(PRODUCTS))


if __name__ == "__main__":
    command.run(main)
