"""Training images a second, end to end from the files: this project against the published way.

    python benchmarks/bench_step.py --data VOC_ROOT --method cac [--backbone resnet18] [--crop 320] [--batch 2]
        [--precision fp32] [--backend auto] [--rounds 5] [--steps 3] [--json] [--results FILE]

Both train the same network on the same images with the same batch. They take turns in one process, with as many
threads for the network and as many for the input each; rates are medians over the rounds, the ratio is the median of
the ratios within a round. What is prepared ahead while the other one trains is used up before the clock starts.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Generator
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

import command
import measurement
import rowfile
from published_way import METHODS
from semiseg.engine.data import prepare_data
from semiseg.engine.device import make_current, resolve_device, resolve_precision
from semiseg.engine.environment import environment
from semiseg.engine.training.graph import WARM_UP
from semiseg.pipelines.cores import cores
from semiseg.pipelines.errors import fault_unless, raise_faults
from ways import Training, Way, voc_recipe

AHEAD = 2
"""Batches that each thread or process of the input may have ready when its turn comes, as DataLoader's workers have."""


def main(
    data: Path,
    method: Literal[tuple(METHODS)] = "cac",
    backbone: str = "resnet18",
    crop: int = 320,
    batch: int = 2,
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    backend: str = "auto",
    compile: bool = False,
    device: str = "auto",
    threads: int = 0,
    rounds: int = 5,
    steps: int = 3,
    json: bool = False,
    results: Path | None = None,
    load: str = "",
) -> None:
    """Compare training as it is here with the published way.

    Args:
        data: any root of Pascal VOC 2012.
        method: what is trained.
        backbone: of the network.
        crop: pixels, side of the windows.
        batch: labelled images a step, and as many unlabelled ones (pairs, mixed images).
        precision: of this project; the published way is float32.
        backend: input pipeline of this project.
        compile: the networks of this project.
        device: auto, cpu, cuda or cuda:N.
        threads: of the input (0: one a core).
        rounds: how often the two take turns.
        steps: timed steps of a turn.
        json: print one JSON document instead of a table.
        results: CSV file that a row is appended to.
        load: what else kept the machine busy, in words, for the row.
    """
    faults = fault_unless(rounds >= 1, "--rounds", "must be at least 1", rounds)
    raise_faults(faults + fault_unless(steps >= 1, "--steps", "must be at least 1", steps))
    rowfile.appendable(results)
    where, threads = resolve_device(device), threads or cores()
    make_current(where)
    recipe = voc_recipe(method, data, device, threads, backbone=backbone, crop=crop, batch=batch)
    prepared, images = prepare_data(recipe), recipe.images_a_step
    precision = resolve_precision(precision, where).name
    ours = Way(backend, "fused", "lean", channels_last=True, precision=precision, graph=True, compile=compile)
    ways = {
        name: steps_of(Training(way, recipe, prepared, where, say))
        for name, way in {"published_way": Way(), "ours": ours}.items()
    }
    seconds, captured = in_turns(ways, where, rounds=rounds, steps=steps, ahead=AHEAD * threads)
    rates = {name: [steps * images / one for one in turns] for name, turns in seconds.items()}
    result: dict[str, Any] = {name: {"images_per_s": round(median(values), 4)} for name, values in rates.items()}
    result["ratio"] = round(median(own / base for own, base in zip(rates["ours"], rates["published_way"])), 3)
    result["rounds"] = {name: [round(rate, 4) for rate in values] for name, values in rates.items()}
    result["settings"] = {
        "method": method,
        "backbone": backbone,
        "crop": crop,
        "batch": batch,
        "images_a_step": images,
        "precision": precision,
        "backend": backend,
        "compile": compile,
        "graph": captured,
        "device": str(where),
        "threads": threads,
        "network_threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps": steps,
        "images": len(prepared.split.labeled),
    }
    result["environment"] = environment()
    if json:
        print(dumps(result, indent=1))
    else:
        table = Table("way", "training images/s", "ratio")
        table.add_row("published", f"{result['published_way']['images_per_s']:.3f}", "1.00")
        table.add_row("ours", f"{result['ours']['images_per_s']:.3f}", f"{result['ratio']:.2f}")
        Console().print(table)
    if results:
        row = {"date": measurement.now(), **measurement.machine(where), "load": load}
        row |= {name: value for name, value in result["settings"].items() if name not in (*row, "images")}
        row |= {name: result[name]["images_per_s"] for name in ways} | {"ratio": result["ratio"]}
        rowfile.append([row], results)


def in_turns(
    ways: dict[str, Generator[bool]], where: torch.device, *, rounds: int, steps: int, ahead: int
) -> tuple[dict[str, list[float]], bool]:
    """The seconds of each way's turns of so many steps, after what was prepared `ahead` is used up; and whether the
    last way replays its steps from a graph."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    captured = False
    before_first = WARM_UP + 1 if where.type == "cuda" else 1
    for number, (name, made) in itertools.product(range(rounds), ways.items()):
        for _ in range(ahead if number else before_first):
            next(made)
        measurement.synchronize(where)
        start = time.perf_counter()
        for _ in range(steps):
            captured = next(made)
        measurement.synchronize(where)
        seconds[name].append(time.perf_counter() - start)
        say(f"round {number + 1}: {name} {seconds[name][-1] / steps:.3f} s a step")
    for made in ways.values():
        made.close()
    return seconds, captured


def steps_of(training: Training) -> Generator[bool]:
    """Makes steps, and says of each whether it is replayed from a graph, or is to be."""
    try:
        for number, batch in enumerate(training.batches):
            training.step(batch, number)
            yield training.graph
    finally:
        training.close()


def say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
