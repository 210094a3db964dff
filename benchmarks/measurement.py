"""Time, memory and error of one call, what it asks of the device, what the device does at best, and which one it is.

On a GPU time is read from events on the device, on the CPU from the clock on the wall. Memory is what the call holds at
its peak beyond what was held before it, results included. Counts of launches and allocations take the place of time
where a result shall not depend on what else the machine does.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from semiseg.engine.environment import processor, versions
from semiseg.engine.memory import forget_peak, peak_bytes

FLUSH_BYTES = 1 << 30
MEMORY = "[memory]"
"""What the profiler calls allocations, and what frees them; all other events of a device are what it is asked to do."""
HEAD_START = 20_000_000
"""Clocks, some 11 ms, for which the GPU sleeps while the host launches a call."""
ROWS = "benchmarks/results"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_milliseconds(call: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """How long each of `rounds` calls keeps the GPU busy, and how long the host takes to launch it.

    Before each, more memory is written than any cache holds, so that the call reads its inputs from memory, and the
    device sleeps until the host has launched the call: its clock does not count the host's work, which a training step
    that runs ahead, or is captured, does not wait for either. Where the host takes longer than the sleep, the device's
    time holds what is beyond.
    """
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    host = []
    for start, end in events:
        flush.zero_()
        torch.cuda._sleep(HEAD_START)
        start.record()
        began = time.perf_counter()
        call()
        host.append(1e3 * (time.perf_counter() - began))
        end.record()
        end.synchronize()  # or the next sleep would begin while the host is still ahead by this one
    return [start.elapsed_time(end) for start, end in events], host


def wall_milliseconds(call: Callable[[], Any], rounds: int) -> list[float]:
    """How long each of `rounds` calls takes on the CPU."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def processor_seconds() -> float:
    """What this process and its living workers have taken of all cores, which depends less on who else wants them than
    time on the clock. Workers count where the system tells (Linux)."""
    seconds = time.process_time()
    for worker in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user, system = map(int, fields[11:13])
        seconds += (user + system) / os.sysconf("SC_CLK_TCK")
    return seconds


def peak_memory(call: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that `call` adds to what is held, at its peak; None where the system does not tell.

    On the CPU this is resident memory, that of libraries included.
    """
    gc.collect()
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        else:
            ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back to the system, or the call would find it there
        forget_peak(device)
    except (OSError, AttributeError):
        call()
        return None
    before = peak_bytes(device)
    result = call()
    peak = peak_bytes(device)
    del result
    return peak - before


@dataclass(frozen=True)
class Counts:
    """What one call asks of the device, the same in every call on machines of one kind."""

    launches: int
    """Kernels, copies and fills on a GPU; on the CPU operators, those that others call included."""
    allocations: int
    allocated_bytes: int
    """Of all allocations, though they may not have been held at once."""
    largest_bytes: int
    """The largest allocation."""


def counts(call: Callable[[], Any], device: torch.device) -> Counts:
    """Of `call`, after one that compiles what it needs. On the CPU with one thread, for the number of operators depends
    on how many share the work out, and the profiler sees but one of them."""
    threads = torch.get_num_threads()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        call()
        synchronize(device)
        with profile(activities=activities, profile_memory=True, acc_events=True) as profiled:
            call()
            synchronize(device)
    finally:
        torch.set_num_threads(threads)
    events = profiled.profiler.kineto_results.events()
    here = [event for event in events if event.device_type().name.lower() == device.type]
    allocated = [event.nbytes() for event in here if event.name() == MEMORY and event.nbytes() > 0]
    launches = sum(event.name() != MEMORY and not event.is_user_annotation() for event in here)
    return Counts(launches, len(allocated), sum(allocated), max(allocated, default=0))


def error(ours: Tensor, exact: Tensor) -> float:
    """|ours - exact| / |exact|, as norms; of labels (uint8) the share that differs."""
    if exact.dtype == torch.uint8:
        return (ours != exact).double().mean().item()
    exact = exact.double()
    return ((ours.double() - exact).norm() / exact.norm().clamp(min=1e-300)).item()


def matmul_roof(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """TFLOP/s of torch's product of two matrices of `side` x `side`."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / _best_milliseconds(lambda: a @ b, device) / 1e9


def copy_roof(size: int, device: torch.device) -> float:
    """GB/s of torch's copy of `size` bytes, what is read and what is written counted."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best_milliseconds(lambda: target.copy_(source), device) / 1e6


def _best_milliseconds(call: Callable[[], Any], device: torch.device) -> float:
    call()
    return min(device_milliseconds(call, 5)[0] if device.type == "cuda" else wall_milliseconds(call, 5))


def now() -> str:
    """The date of a row: in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(device: torch.device) -> dict[str, Any]:
    """The GPU or processor, threads and versions that a result depends on, and the commit."""
    return {
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": versions().get("triton", ""),
        "commit": os.environ.get("SEMISEG_COMMIT") or _commit(),
    }


def _commit() -> str:
    """Of this checkout, ending in -dirty where more differs from it than rows do; empty outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    asked = ["describe", "--always", "--exclude=*"], ["diff", "--quiet", "HEAD", "--", ":/", f":(top,exclude){ROWS}"]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10) for words in asked
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() + ("-dirty" if changes.returncode == 1 else "")
