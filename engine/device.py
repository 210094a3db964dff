"""Where and how exactly networks compute: the device, and the precision of its products."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import cv2
import torch

from ..kernels.precision import allow_tf32, precision_kept
from ..pipelines.errors import UsageError

PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
ALONE = threading.RLock()
"""Held while a public call runs: one thread at a time."""
AMPERE = (8, 0)
"""From this capability on GPUs multiply bf16; torch calls it supported on older ones, too, which emulate it."""
PEAKS = {
    " B200$": (2250.0, 75.0),
    " G?H200( 480GB)?$": (989.5, 67.0),
    "H100 PCIe$": (756.5, 51.2),
    "H100 NVL$": (835.0, 60.0),
    "H100 80GB HBM3$": (989.5, 67.0),
    "A100-(SXM4|PCIE)-[48]0GB$": (312.0, 19.5),
    "A100 80GB PCIe$": (312.0, 19.5),
    "L40S$": (362.0, 91.6),
    "L4$": (121.0, 30.3),
    "A10$": (125.0, 31.2),
    "RTX A6000$": (154.8, 38.7),
    "RTX 4090$": (165.2, 82.6),
    "RTX 3090$": (71.0, 35.6),
}
"""Pattern at the end of a GPU's name -> TFLOP a second of dense products of 16-bit numbers summed in float32, and of
float32, by NVIDIA's data sheets. TF32 has half the rate of the former in all of them."""


@dataclass(frozen=True, slots=True)
class Precision:
    """What matrix products and convolutions on a device are computed in: fp32, tf32, bf16 or fp16."""

    name: str
    device: torch.device

    @property
    def emulated(self) -> bool:
        """Whether the device has no instructions for its products, which then take longer than in float32, on a CPU
        tens of times."""
        unknown = self.device.type == "cpu" and _capabilities().get("architecture", "x86_64") != "x86_64"
        return self.name in LOW and not unknown and not _has(self.name, self.device)

    def autocast(self) -> AbstractContextManager:
        """The context in which networks and losses compute."""
        low = LOW.get(self.name)
        return torch.autocast(self.device.type, low) if low else nullcontext()

    def peak_flops(self) -> float | None:
        """A second, of dense matrix products; None where the device's are not known."""
        if self.device.type != "cuda":
            return None
        gpu = torch.cuda.get_device_name(self.device)
        for pattern, (low, full) in PEAKS.items():
            if re.search(pattern, gpu):
                return 1e12 * {"fp32": full, "tf32": low / 2}.get(self.name, low)
        return None

    def allow_tf32(self) -> None:
        """Says to a GPU whether it may use TF32 for what is left in float32; for the whole process."""
        if self.device.type == "cuda":
            allow_tf32(self.name != "fp32")


@contextmanager
def as_started() -> Iterator[None]:
    """Torch as a new process has it, whatever the program around has set: float32 by default and in products, on the
    CPU, no autocast, gradients on. Afterwards all is as it was, also the CPU's generator of random numbers, how float32
    is multiplied, which GPU is the current one, and OpenCV's threads.

    These belong to the process: a thread would change what another one computes. Raises UsageError where another one
    is inside."""
    if not ALONE.acquire(blocking=False):
        raise UsageError(
            "semiseg is at work in another thread, and either would change the other's results (random numbers and "
            "precisions are those of the process): wait for it, or use a process for each"
        )
    with ExitStack() as changed:
        changed.callback(ALONE.release)
        dtype, threads = torch.get_default_dtype(), cv2.getNumThreads()
        changed.callback(_set_current, torch.cuda.current_device() if torch.cuda.is_initialized() else 0)
        changed.enter_context(precision_kept())
        allow_tf32(False)
        changed.enter_context(torch.random.fork_rng(devices=[]))
        changed.enter_context(torch.inference_mode(False))
        changed.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                changed.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            changed.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            cv2.setNumThreads(threads)


def _set_current(gpu: int) -> None:
    if torch.cuda.is_initialized():  # else it would be now, and take memory
        torch.cuda.set_device(gpu)


WORKSPACE = ":4096:8"
"""Of cuBLAS, with which its sums have a fixed order."""


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Where it is wanted, the same bits in every run on one machine: sums in a fixed order, for the whole process and
    until the end of the context. Raises UsageError for an operation that torch cannot do so, and on a GPU that has
    multiplied matrices in this process before, unless CUBLAS_WORKSPACE_CONFIG=:4096:8 was set by then."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # whose attribute mypy does not see
    filling = memory.fill_uninitialized_memory
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
        torch.use_deterministic_algorithms(True)
        # Of memory that is written before it is read, which takes a launch for each tensor.
        memory.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if not wanted or "use_deterministic_algorithms" not in str(error):
            raise
        if "CuBLAS" in str(error):
            cure = f"this process multiplied matrices before; start it with CUBLAS_WORKSPACE_CONFIG={WORKSPACE}"
        elif "nll_loss" in str(error):  # of the plain cross-entropy, which serves where the kernel is refused
            cure = "the cross-entropy's kernel is not used, and torch's has no fixed order; see `semiseg selfcheck`"
        else:
            cure = f"{str(error).partition(', but')[0]}; leave it out, or pass another --backbone or --network"
        raise UsageError(f"--deterministic: {cure}") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filling


def resolve_device(name: str, own: int | None = None) -> torch.device:
    """auto, cpu, cuda or cuda:N -> a device that is there. own: the number that cuda stands for where several processes
    have a GPU each. Raises UsageError otherwise."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device: {name!r} is no device; pass auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no GPU is available here; pass --device cpu, or check the driver (nvidia-smi)")
    if device.type == "cuda" and own is not None:
        if device.index is not None:
            raise UsageError(f"--device {name}: each process takes a GPU of its own; pass --device cuda")
        if own >= torch.cuda.device_count():
            raise UsageError(
                f"--device cuda: process {own} of this machine finds {torch.cuda.device_count()} GPUs; start as many "
                "processes as there are GPUs"
            )
        device = torch.device("cuda", own)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device: {name!r} is not supported; pass cpu or cuda")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def resolve_precision(name: str, device: torch.device) -> Precision:
    """auto -> bf16 on a GPU that has it, or a processor whose convolutions it makes faster, else fp32. Raises
    UsageError for tf32 without a GPU, and for a precision that there is not."""
    if name not in get_args(PrecisionName):
        raise UsageError(f"--precision: must be one of {', '.join(get_args(PrecisionName))}, is {name!r}")
    if name == "tf32" and device.type != "cuda":
        raise UsageError("--precision tf32: only GPUs have it; pass fp32 or bf16")
    if name == "auto":
        name = "bf16" if _has("bf16", device) and (device.type == "cuda" or pays_off()) else "fp32"
    return Precision(name, device)


def precision_as_trained(name: str, device: torch.device) -> Precision:
    """What a training asked for, or auto on a device that does not have it."""
    tf32_without_gpu = name == "tf32" and device.type != "cuda"
    chosen = resolve_precision("auto" if tf32_without_gpu else name, device)
    return resolve_precision("auto", device) if chosen.emulated else chosen


def _has(name: str, device: torch.device) -> bool:
    """Whether there are instructions for products of bf16 or fp16."""
    if device.type == "cuda":
        return name == "fp16" or torch.cuda.get_device_capability(device) >= AMPERE
    return any(_capabilities().get(f"{unit}_{name}", False) for unit in ("avx512", "amx"))


@cache
def pays_off() -> bool:
    """Whether this processor convolves in bf16 faster than in float32: some have the instructions and take longer."""
    return convolution_seconds(torch.bfloat16) < convolution_seconds(torch.float32)


def convolution_seconds(dtype: torch.dtype) -> float:
    """Of one thread's time on the processor, which is the same whatever else is at work: the shortest of ten."""
    threads, seconds = torch.get_num_threads(), []
    form: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    image, weight = torch.ones(2, 64, 40, 40, **form), torch.ones(64, 64, 3, 3, **form)
    image, weight = (each.contiguous(memory_format=torch.channels_last) for each in (image, weight))
    torch.set_num_threads(1)
    try:
        for _ in range(10):
            start = time.thread_time()
            torch.conv2d(image, weight, padding=1)
            seconds.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(seconds)


def _capabilities() -> dict[str, Any]:
    """What torch knows of the processor."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def make_current(device: torch.device) -> None:
    """What this thread asks of "the" GPU is then asked of this one: events and streams that nobody says a device of."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of the generators that a step may draw from: the CPU's, and the device's own."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Gives it to those generators that the state has, and that there are here."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"].clone())  # of a view, torch reads what lies elsewhere
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
