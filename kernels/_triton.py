"""What every Triton kernel here shares: an import that may fail, one way to launch, baked configurations.

Kernels are compiled for the shapes' divisibility and the dtypes of their arguments, never tuned at run time, unless
`SEMISEG_AUTOTUNE=1` asks for it; then the fastest candidate of each launcher and size bucket is found once per process
and named on stderr. `TRITON_INTERPRET=1`, set before the import, runs the kernels on CPU tensors.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

Result = TypeVar("Result")

INTERPRETED = triton is not None and os.environ.get("TRITON_INTERPRET", "0") == "1"
AUTOTUNE = os.environ.get("SEMISEG_AUTOTUNE", "0") == "1"
OLDEST_ARCHITECTURE = 80


def jit(function: Callable | None = None, *, any_size: Sequence[str] = ()) -> Any:
    """`triton.jit`, or the bare function where triton is not installed (then it is never launched).

    any_size: arguments for whose values (divisible by 16, equal to 1) no variant of the kernel shall be compiled.
    """
    if function is None:
        return partial(jit, any_size=any_size)
    return function if triton is None else triton.jit(function, do_not_specialize=list(any_size))


@dataclass(frozen=True)
class Configuration:
    """Block sizes (constants of the kernel), warps of a program, stages of the software pipeline."""

    blocks: Mapping[str, int]
    warps: int = 4
    stages: int = 2


@dataclass
class Recording:
    """Launches are noted down instead of made while one of these is active: (kernel, arguments, keywords).
    `python -m semiseg.kernels.aot` compiles them for `architecture`, 10 x compute capability."""

    architecture: int
    launches: list[tuple] = field(default_factory=list)


_recording: Recording | None = None
_tuned: dict[tuple, Configuration] = {}


@contextlib.contextmanager
def recording(architecture: int) -> Iterator[Recording]:
    """Note launches on meta tensors as a device of `architecture` would make them."""
    global _recording
    _recording = Recording(architecture)
    try:
        yield _recording
    finally:
        _recording = None


def runs_on(device: torch.device) -> bool:
    """Whether the Triton kernels serve tensors on this device."""
    if triton is None:
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and _capability(device) >= OLDEST_ARCHITECTURE
    return INTERPRETED and device.type == "cpu"


def architecture(device: torch.device) -> int:
    """10 x compute capability of a CUDA device, or of what launches are recorded for; 0 in the interpreter."""
    if _recording is not None:
        return _recording.architecture
    return _known_capability(device) if device.type == "cuda" else 0


def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


# Not for `runs_on`: `torch.compile` traces it, and would not see through a cache. Launches it does not trace.
_known_capability = cache(_capability)


def multiprocessors(device: torch.device) -> int:
    """How many programs run side by side, at one per multiprocessor."""
    if device.type == "cuda":
        return _known_multiprocessors(device)
    return 3 if _recording is None else 132


@cache
def _known_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def choose(
    name: str,
    baked: Mapping[int, Configuration],
    device: torch.device,
    key: tuple = (),
    candidates: Sequence[Configuration] = (),
    run: Callable[[Configuration], Any] | None = None,
) -> Configuration:
    """The configuration of launcher `name`: baked for the newest architecture that the device has reached.

    baked: architecture -> configuration, 0 for the interpreter. With `SEMISEG_AUTOTUNE=1` the fastest of `candidates`
    by the time of `run`, found once per device architecture and `key`.
    """
    here = architecture(device)
    known = baked[max(arch for arch in baked if arch <= here)]
    if not AUTOTUNE or here == 0 or not candidates or run is None or _recording is not None:
        return known
    place = (name, here, *key)
    if place not in _tuned:
        options = (known, *candidates)
        times = [_milliseconds(partial(run, option)) for option in options]
        _tuned[place] = options[times.index(min(times))]
        print(f"semiseg: {place}: {_tuned[place]} takes {min(times):.4f} ms", file=sys.stderr)
    return _tuned[place]


def _milliseconds(run: Callable[[], Any]) -> float:
    try:
        return triton.testing.do_bench(run, return_mode="median")
    except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
        return float("inf")


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 2, **constants: Any):
    """Run `kernel` on the device of its tensors over `grid`; `constants` are its compile-time arguments."""
    # Multiply-adds are fused, as Triton does by default until 3.10.
    keywords = {**constants, "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    if _recording is not None:
        _recording.launches.append((kernel, arguments, keywords))
        return
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        kernel[grid](*arguments, **keywords)
        return
    with torch.cuda.device(device):
        kernel[grid](*arguments, **keywords)


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number` (at least 1)."""
    return 1 << max(number - 1, 0).bit_length()


def ceil_div(number: int, step: int) -> int:
    """number / step, rounded up."""
    return -(-number // step)
