"""How much memory there is, and how much of it may still be used."""

from __future__ import annotations

from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

SYSTEM = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


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
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return max(limit - int(status.read_text().split()[0]) * resource.getpagesize(), 0)
    except (OSError, ValueError):
        return None
