"""How much memory there is, how much of it may still be used, and bytes in words."""

from __future__ import annotations

import resource
from pathlib import Path

SYSTEM = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
GIB = 2**30
"""Bytes."""


def gib(count: float) -> str:
    """Bytes in words, in GiB, or in MiB where that is less than a tenth of one."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def free_memory(system: Path = SYSTEM, group: Path = GROUP) -> int | None:
    """Bytes that this process may still take: of what the machine has, by the limit of its control group (containers)
    and by its own (`ulimit -v`). None where nothing is known."""
    known = [free for free in (_of_the_machine(system), _of_the_group(group), _of_the_process()) if free is not None]
    return min(known, default=None)


def whole_memory(system: Path = SYSTEM, group: Path = GROUP) -> int | None:
    """Bytes that the machine has, or its control group where that may take less. None where nothing is known."""
    try:
        limit = int((group / "memory.max").read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        limit = None
    known = [size for size in (_of_the_machine(system, "MemTotal"), limit) if size is not None]
    return min(known, default=None)


def _of_the_machine(path: Path, field: str = "MemAvailable") -> int | None:
    try:
        return next(
            1024 * int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{field}:")
        )
    except (OSError, ValueError, StopIteration):
        return None


def _of_the_group(folder: Path) -> int | None:
    """The limit less what is used; pages of files that nobody uses are given back when they are wanted."""
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(limit - used + int(stat.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None


def _of_the_process(status: Path = Path("/proc/self/statm")) -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return max(limit - int(status.read_text().split()[0]) * resource.getpagesize(), 0)
    except (OSError, ValueError):
        return None
