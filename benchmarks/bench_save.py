"""What a save of a run costs the training: `python benchmarks/bench_save.py [--backbone resnet50] [--results FILE]`.

The supervised recipe of VOC makes steps of noise. `copy` is how long training waits for its state to be copied, `write`
how long a thread then takes to write it with checksums, and `write_cpu` how much of a core, which a step on a CPU would
have used. The loss of time is that of a save every five minutes, copy and write_cpu together; where a GPU computes, the
copy alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from rich.console import Console

import command
import measurement
import rowfile
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.device import Precision, make_current, resolve_device, resolve_precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.saver import Saver
from semiseg.engine.training.step import Step
from semiseg.pipelines.batch import Batch, Labeled
from semiseg.pipelines.errors import fault_unless, raise_faults

CLASSES, EVERY_S = 21, 300


def main(
    backbone: str = "resnet50",
    crop: int = 320,
    batch: int = 2,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    rounds: int = 3,
    results: Path | None = None,
    load: str = "",
) -> None:
    """Measure steps and saves.

    Args:
        backbone: of the network.
        crop: pixels, side of the windows.
        batch: images a step.
        precision: of the steps.
        device: auto, cpu, cuda or cuda:N.
        rounds: rounds; their medians are reported.
        results: CSV file that a row is appended to.
        load: what else kept the machine busy, in words, for the row.
    """
    raise_faults(fault_unless(rounds >= 1, "--rounds", "must be at least 1", rounds))
    rowfile.appendable(results)
    where = resolve_device(device)
    make_current(where)
    computing = resolve_precision(precision, where)
    setting = {"backbone": backbone, "crop": crop, "batch": batch, "precision": computing.name}
    measured = measure(setting, computing, rounds)
    row = {"date": measurement.now(), **measurement.machine(where), "load": load}
    row |= setting | {"device": str(where), "rounds": rounds} | measured
    Console().print(row)
    if results:
        rowfile.append([row], results)


def measure(setting: dict[str, Any], computing: Precision, rounds: int) -> dict[str, float]:
    """Medians over the rounds, in seconds, the size of a state in MB, and the loss of time in percent."""
    recipe = load_recipe("supervised_voc").replace(weights="none", **setting)
    method = build_method(recipe, CLASSES).to(computing.device, memory_format=torch.channels_last).train()
    step = Step(recipe, method, computing)
    side = recipe.crop
    images = torch.randn(recipe.batch, 3, side, side, device=computing.device)
    target = torch.randint(0, CLASSES, (recipe.batch, side, side), device=computing.device, dtype=torch.uint8)
    shown = Batch(Labeled(images.contiguous(memory_format=torch.channels_last), target))
    times: dict[str, list[float]] = {"step_s": [], "copy_s": [], "write_s": [], "write_cpu_s": []}

    def timed(call: Callable[[], Any], *names: str) -> None:
        wall, own = time.perf_counter(), time.process_time()
        call()
        measurement.synchronize(computing.device)
        for name, spent in zip(names, (time.perf_counter() - wall, time.process_time() - own)):
            times[name].append(spent)

    with tempfile.TemporaryDirectory() as folder:
        saver = Saver(Path(folder), computing.device, (EVERY_S, float("inf")))
        step(shown, 0)
        for number in range(1, rounds + 1):
            timed(partial(step, shown, 0), "step_s")
            state = {"method": method.state_dict(), "step": step.state_dict()}
            timed(partial(saver.save, number, state), "copy_s")
            timed(saver.flush, "write_s", "write_cpu_s")
        megabytes = max(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        saver.close()
    found = {name: round(median(spent), 4) for name, spent in times.items()}
    lost = found["copy_s"] + (found["write_cpu_s"] if computing.device.type == "cpu" else 0)
    return {"state_mb": round(megabytes, 1)} | found | {"lost_pct": round(100 * lost / EVERY_S, 3)}


if __name__ == "__main__":
    command.run(main)
