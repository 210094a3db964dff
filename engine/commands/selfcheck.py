"""`semiseg selfcheck`."""

from __future__ import annotations

import sys
from dataclasses import asdict

from ...kernels.check import Result, table
from ...pipelines.backends import PLAIN, available
from .. import console
from ..catalogue import load_recipe
from ..device import Precision, resolve_device, resolve_precision
from ..events import notes_to, progress_of
from ..models import ENCODERS
from ..training import verdict
from ..training.check import WAYS, Subject
from .options import emit

RECIPE = "supervised_shapes"
"""The method whose steps are made, on the first encoder of all, which is compiled soonest."""


def selfcheck(*, device: str = "auto", compile: bool = False, json: bool = False) -> None:
    """Check what is fast on this device against what is plain: kernels, input backends, ways to make a step.

    Kernels against their definition in float64, forward and gradient, in float32 and in the precision that training
    takes by default; input backends against host on the same plans; on a GPU compiled and captured steps of a small
    network against eager ones, gradient by gradient. Each in a process of its own, which may crash. Training reads the
    verdicts. Exits with 1 where something is wrong or fails.

    Args:
        device: auto, cpu, cuda or cuda:N.
        compile: Check compiled steps on a CPU too, which takes minutes.
        json: Print one JSON document.
    """
    precision = resolve_precision("auto", resolve_device(device))
    parts = parts_of(precision, compile)
    results: dict[str, list[Result]] = {kind: [] for kind in parts}
    queue = [(kind, part) for kind, known in parts.items() for part in known]
    with console.listening() as listener:
        progress = progress_of("checking", listener)
        for done, (kind, part) in enumerate(queue):
            progress(done, len(queue))
            results[kind] += verdict.verdict(part, notes_to(listener), anew=True)
        progress(len(queue), len(queue))
    rows = [row for found in results.values() for row in found]
    wrong = any(row.problem for row in rows)
    if json:
        emit({"ok": not wrong} | {kind: [asdict(row) for row in found] for kind, found in results.items()})
    else:
        console.say(table(rows))
        if not parts["steps"]:
            console.say("steps: compiled ones are checked on a CPU with --compile, which takes minutes")
    if wrong:
        sys.exit(1)


def parts_of(precision: Precision, compile: bool) -> dict[str, list[verdict.Part]]:
    """What is checked, by kind. compile: also what takes minutes on a CPU."""
    device = precision.device
    on_cpu = ["compiled"] if compile else []
    ways = list(WAYS) if device.type == "cuda" else on_cpu
    subject = Subject.of(load_recipe(RECIPE).replace(backbone=next(iter(ENCODERS))))
    return {
        "kernels": [verdict.kernels(precision)],
        "backends": [verdict.backend(name, device) for name in available() if name != PLAIN],
        "steps": [
            verdict.steps(way, subject, Precision(name, device))
            for way in ways
            for name in verdict.precisions(precision)
        ],
    }
