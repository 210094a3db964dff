"""SLURM, which starts a job again that it, or its time, has stopped."""

from __future__ import annotations

import os
import shutil
import subprocess

from ...pipelines.errors import UsageError


def require_job() -> None:
    """Raises UsageError where this is no job, or where nothing can ask for it again."""
    if not os.environ.get("SLURM_JOB_ID"):
        raise UsageError("--requeue: no job of SLURM (SLURM_JOB_ID is not set); start it by sbatch, or leave it out")
    if shutil.which("scontrol") is None:
        raise UsageError("--requeue: SLURM's scontrol is not in PATH; add its folder, or leave --requeue out")


def requeue() -> str:
    """Asks for the job again, which SLURM then ends; says in one line what it said."""
    job = os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode:
        return f"warning: job {job} is not started again: {' '.join(done.stderr.split())} (scontrol requeue {job})"
    return f"job {job} is started again"
