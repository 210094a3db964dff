"""Where and how something runs, as a stranger needs to know it: machine, versions, command and commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..pipelines.cores import cores
from ..pipelines.memory import GIB, whole_memory

PACKAGES = (
    "semiseg", "torch", "torchvision", "triton", "numpy", "pillow", "opencv-python-headless",
    "nvidia-dali-cuda130", "nvidia-dali-cuda120",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of those of PACKAGES that are there."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """All that a stranger needs to know of where and how something ran: machine, versions, command and commit. What is
    not known, or not there, is None."""
    memory = whole_memory()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory and round(memory / GIB, 1),
        **_gpu(),
        "cuda": torch.version.cuda,
        "packages": versions(),
        "commit": commit_of(Path(__file__)),
    }


def _gpu() -> dict[str, Any]:
    """The GPU that this process uses, how many there are, and their driver. A process that uses none does not ask, as
    that would make one ready: it takes memory, and fails where another process has the GPU to itself."""
    if not torch.cuda.is_initialized():
        return dict.fromkeys(("gpu", "gpus", "gpu_memory_gib", "compute_capability", "driver", "cudnn"))
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": device.name,
        "gpus": torch.cuda.device_count(),
        "gpu_memory_gib": round(device.total_memory / GIB, 1),
        "compute_capability": f"{device.major}.{device.minor}",
        "driver": driver(),
        "cudnn": torch.backends.cudnn.version(),
    }


def driver() -> str | None:
    """The version of NVIDIA's driver; None where it is not told."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def commit_of(file: Path) -> str | None:
    """The commit of the checkout that holds a file, ending in -dirty where something differs from it; None where it is
    in none, as that of a library installed into a folder of another project."""
    asked = (
        ["ls-files", "--error-unmatch", file.name],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    )
    try:
        told = [
            subprocess.run(["git", "-C", file.parent, *words], capture_output=True, text=True, timeout=5)
            for words in asked
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told[-1].stdout.strip() if not any(one.returncode for one in told) else None
