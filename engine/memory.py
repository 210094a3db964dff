"""Memory: what a process or a GPU held at most, what is free, and what is said where it does not do."""

from __future__ import annotations

import errno
import math
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ..pipelines.errors import UsageError
from ..pipelines.memory import free_memory

OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
)
"""In errors that have no type of their own: those of torch's allocator on Linux and on other systems, of sizes beyond
any memory, of C++, and of a GPU's libraries and driver."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells a process what it holds, and forgets what it held (`man proc_pid_clear_refs`)."""


def forget_peak(device: torch.device) -> None:
    """From here on `peak_bytes` is that of what follows, and now what is held. Raises OSError where the system has no
    way to forget."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """The most that was held: of a GPU, by torch; without one, of this process's resident memory, libraries included.
    Not getrusage's, which starts with what the parent process held, but where nothing else tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()):
            return 1024 * int(found[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_memory_of(device: torch.device, enough: float = math.inf) -> int | None:
    """Bytes that may still be taken there; None where it is not known. What the graph of a step computes in is its own,
    whether it is at work or not. enough: where that much is free at first sight, what torch keeps of it is not counted
    besides, which takes a look at every block."""
    if device.type != "cuda":
        return free_memory()
    free, _ = torch.cuda.mem_get_info(device)
    if free >= enough:
        return free
    for segment in torch.cuda.memory_snapshot():
        if segment["device"] == (device.index or 0) and tuple(segment["segment_pool_id"]) == (0, 0):
            free += segment["total_size"] - segment["allocated_size"]
    return free


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory; on the CPU torch has no type for it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    told = any(words in str(error) for words in OUT_OF_MEMORY)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, RuntimeError) and told)


@contextmanager
def within_memory(said: Callable[[], str]) -> Iterator[None]:
    """Raises UsageError, with what is said then, where memory does not do for what is done inside."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UsageError(said()) from None
