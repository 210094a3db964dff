"""How many threads are worth starting."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = QUOTA) -> int:
    """The processors that this process may use, at least 1: by its affinity (taskset, Slurm) and by the share that its
    control group has of them (containers)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        return max(min(allowed, math.ceil(int(share) / int(period))), 1)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return allowed
