"""Where the time of some steps goes: a trace to look at, and the most expensive items in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, schedule

from ...pipelines.progress import Say

SKIPPED, PROFILED = 5, 5
"""Steps before the first that is profiled, which compile, allocate and fill caches, and steps that are."""
SHOWN = 10


@contextmanager
def profiling(folder: Path, device: torch.device, say: Say) -> Iterator[Callable[[], None]]:
    """A function to be called after each step. After the last of the profiled steps the trace lies in the folder, and
    `say` is told of it and of what took longest, or that there were too few. Threads count, so the input is seen as
    well."""
    path = folder / "trace.json.gz"
    path.unlink(missing_ok=True)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    if device.type == "cpu":  # the profiler's own log tells stderr of GPUs that it does not find
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")

    def done(result: profile) -> None:
        result.export_chrome_trace(str(path))
        say(f"{summary(result, device)}\ntrace of {PROFILED} steps: {path} (open it in ui.perfetto.dev)")

    with profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=PROFILED, repeat=1),
        on_trace_ready=done,
        record_shapes=False,
        acc_events=True,  # of the one cycle that there is; older versions of torch warn without
        experimental_config=_ExperimentalConfig(profile_all_threads=True),
    ) as result:
        yield result.step
    if not path.exists():
        say(f"no trace: steps {SKIPPED + 1} to {SKIPPED + PROFILED} of a process are profiled, and it made fewer")


def summary(result: profile, device: torch.device) -> str:
    """The most expensive items, a line each, with their milliseconds a step and their share."""
    on_gpu = device.type == "cuda"

    def own(item) -> float:
        return item.self_device_time_total if on_gpu else item.self_cpu_time_total

    items = sorted(result.key_averages(), key=own, reverse=True)
    total = sum(map(own, items)) or 1.0
    lines = [f"most expensive on the {'GPU' if on_gpu else 'CPU'}, all threads together, in ms a step:"]
    lines += [f"{own(item) / 1e3 / PROFILED:10.2f}  {own(item) / total:5.1%}  {item.key}" for item in items[:SHOWN]]
    return "\n".join(lines)
