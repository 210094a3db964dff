"""What holds a training run up on this machine, and the flag to change: `semiseg bench --quick`, under three minutes.

The parts of a run are measured apart: the input, the step on batches that lie ready, and the evaluation of some
validation images. On a GPU the host's time to launch a step is measured beside the device's time to make it. The
verdict names what takes longest.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any

import torch

import command
import measurement
from semiseg.engine.catalogue import find_recipe
from semiseg.engine.commands.train import parse, recipe_words
from semiseg.engine.data import prepare_data
from semiseg.engine.device import make_current, resolve_device, resolve_precision
from semiseg.engine.environment import environment
from semiseg.engine.evaluation.validation import evaluate_each
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import open_loader, open_method
from semiseg.engine.training.graph import WARM_UP
from semiseg.engine.training.step import Step

SECONDS, BATCHES, IMAGES = 15.0, 4, 8


@dataclass(frozen=True)
class Verdict:
    bound: str
    """decode, launch, compute or evaluation."""
    advice: str


def verdict(seconds: dict[str, float], steps: int, evaluated: int, device: str, faster: str | None = None) -> Verdict:
    """Of a run of so many steps that evaluates so many images in all. `seconds`: of an input batch, a step, on a GPU
    its launch, and of an evaluated image. faster: a precision that the device computes faster in than the run's."""
    evaluating = evaluated * seconds["evaluated_image"]
    training = steps * max(seconds["input"], seconds["step"])
    if evaluating > training:
        return Verdict("evaluation", "evaluate less often: --eval-every with more steps")
    if seconds["input"] > seconds["step"]:
        other = "--backend dali, --threads, or --backend resident" if device == "cuda" else "--backend resident"
        return Verdict("decode", f"make the input faster: {other}, after `semiseg prepare --pack`")
    if seconds.get("launch", 0.0) > 0.9 * seconds["step"]:
        return Verdict("launch", "give the device more at once: --batch, or --compile")
    precision = f" --precision {faster}," if faster else ""
    return Verdict("compute", f"compute less:{precision} a smaller --crop or --backbone")


def timed(call: Callable[[], Any], device: torch.device, seconds: float, least: int = 2) -> float:
    """The median of the seconds of a call, after one that does not count."""
    call()
    times, began = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        measurement.synchronize(device)
        start = time.perf_counter()
        call()
        measurement.synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times)


def flowing(call: Callable[[], Any], seconds: float, least: int = 2) -> float:
    """The mean of the seconds of a call, which may take some that are ready and then wait for one."""
    began = time.perf_counter()
    for count in itertools.count(1):
        call()
        taken = time.perf_counter() - began
        if count >= least and taken >= seconds:
            return taken / count
    raise AssertionError


def launched(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the host has launched a call, while the device is busy with something else. Where the device was
    done with that before, as the host may have waited for room among the launches under way, those of a call that the
    device begins at once."""
    torch.cuda.synchronize(device)
    torch.cuda._sleep(1_000_000_000)
    done = torch.cuda.Event()
    done.record()
    start = time.perf_counter()
    call()
    taken = time.perf_counter() - start
    waited = done.query()
    torch.cuda.synchronize(device)
    if waited:
        start = time.perf_counter()
        call()
        taken = time.perf_counter() - start
        torch.cuda.synchronize(device)
    return taken


def recipe_of(words: str, *flags: str) -> Recipe:
    """The one that is named by the first of some words, with flags. Raises UsageError."""
    name, own = recipe_words(words, "--recipe")
    said = [*flags, *own]
    return parse(find_recipe(name), said, "flags of the recipe stand behind its name, in quotes with it")[0].recipe


def main(recipe: str = "cac_shapes", data: Path | None = None, device: str = "auto", json: bool = False) -> None:
    """Find what holds a training run up.

    Args:
        recipe: a recipe's name, with flags of its own behind it: "fixmatch_folder --split draw:1/8@0".
        data: root of its data set.
        device: auto, cpu, cuda or cuda:N.
        json: print one JSON document.
    """
    chosen = recipe_of(recipe, *(["--data", str(data)] if data else []), "--device", device)
    where = resolve_device(chosen.runtime.device)
    make_current(where)
    chosen.check()
    prepared = prepare_data(chosen)
    precision = resolve_precision(chosen.runtime.precision, where)
    method = open_method(chosen, prepared, where, fresh=False)
    step = Step(chosen, method, precision)
    loader = open_loader(chosen.replace(steps=sys.maxsize), prepared, where)  # a fast input outlasts a short run
    batches = iter(loader)
    ready = list(itertools.islice(batches, BATCHES))
    numbers = itertools.count(chosen.steps // 2)
    seconds = {"input": flowing(lambda: next(batches), SECONDS)}
    loader.close()
    turns = itertools.cycle(ready)
    for _ in range(WARM_UP + 1 if step.graph else 0):  # then it is captured, or refused
        step(next(turns), next(numbers) % chosen.steps)
    seconds["step"] = timed(lambda: step(next(turns), next(numbers) % chosen.steps), where, SECONDS)
    if where.type == "cuda":
        seconds["launch"] = launched(lambda: step(next(turns), next(numbers) % chosen.steps), where)
    some = prepared.val[:IMAGES]
    classes = prepared.dataset.classes
    protocol = chosen.protocol()

    def evaluate_all() -> None:
        for network in method.predictors().values():
            evaluate_each(network, some, classes, [protocol], precision=precision)

    evaluated = timed(evaluate_all, where, SECONDS, least=1)
    seconds["evaluated_image"] = evaluated / len(some)
    evaluations = -(-chosen.steps // chosen.steps_between_evaluations())
    best = resolve_precision("auto", where).name
    faster = None if best == precision.name else best
    found = verdict(seconds, chosen.steps, evaluations * len(prepared.val), where.type, faster)
    images = chosen.images_a_step
    document = {
        "recipe": chosen.name,
        "settings": {
            "backbone": chosen.backbone,
            "crop": chosen.crop,
            "batch": chosen.batch,
            "images_a_step": images,
            "device": str(where),
            "precision": precision.name,
            "graph": step.graph is not None,
            "backend": type(loader.backend).__name__,
        },
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "images_per_s": {name: round(images / seconds[name], 2) for name in ("input", "step")},
        "bound": found.bound,
        "advice": found.advice,
        "environment": environment(),
    }
    if json:
        print(dumps(document, indent=1))
        return
    print(f"input alone     {document['images_per_s']['input']:10.1f} images/s")
    print(f"step alone      {document['images_per_s']['step']:10.1f} images/s ({precision.name}, {where})")
    print(f"evaluation      {1 / seconds['evaluated_image']:10.1f} images/s")
    print(f"{found.bound}-bound: {found.advice}")


if __name__ == "__main__":
    command.run(main)
