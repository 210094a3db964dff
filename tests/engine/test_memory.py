"""Memory: what was held, what is free, and what is said where it does not do."""

from __future__ import annotations

import errno
import re

import numpy as np
import pytest
import torch

from semiseg.engine import memory
from semiseg.engine.disk import DiskFull, writing
from semiseg.engine.memory import free_memory_of, out_of_memory, within_memory
from semiseg.pipelines.errors import UsageError


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(10**14),
        lambda: torch.empty(10**10, 10**10),
        lambda: torch.nn.functional.pad(torch.zeros(1, 1), (0, 10**7, 0, 10**7)),
        lambda: np.empty(10**14),
        lambda: _raise(OSError(errno.ENOMEM, "Cannot allocate memory")),
        # Of GPUs that others fill, by name: `AcceleratorError` is no OutOfMemoryError.
        lambda: _raise(RuntimeError("CUDA error: out of memory")),
        lambda: _raise(RuntimeError("Triton Error [CUDA]: out of memory")),
    ],
)
def test_what_runs_out_of_memory_says_what_it_is_told_to(make):
    with pytest.raises(Exception) as error:
        make()
    assert out_of_memory(error.value)
    with pytest.raises(UsageError, match="buy more"), within_memory(lambda: "buy more"):
        make()


def test_what_a_graph_computes_in_is_not_free(monkeypatch):
    segments = [
        {"device": 1, "segment_pool_id": (0, 0), "total_size": 100, "allocated_size": 30},
        {"device": 1, "segment_pool_id": (0, 7), "total_size": 400, "allocated_size": 0},
        {"device": 0, "segment_pool_id": (0, 0), "total_size": 1000, "allocated_size": 0},
    ]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert free_memory_of(torch.device("cuda", 1)) == free_memory_of(torch.device("cuda", 1), enough=5001) == 5070
    assert free_memory_of(torch.device("cuda", 1), enough=5000) == 5000


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [RuntimeError("sizes do not match"), OSError(28, "No space left"), UsageError("can't allocate memory")],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    with pytest.raises(type(error), match=re.escape(str(error))), within_memory(lambda: "buy more"):
        _raise(error)


def test_a_lack_of_memory_is_no_full_disk(tmp_path):
    """Which a save would wait out, and an export report."""
    path = tmp_path / "best.pt2"
    with pytest.raises(UsageError, match="buy more") as error, within_memory(lambda: "buy more"), writing(path):
        torch.empty(10**14)
    assert not isinstance(error.value, DiskFull)


def test_peak_memory_is_known_where_the_system_tells_less(monkeypatch, tmp_path):
    """As in sandboxes, whose /proc has no high-water mark: by getrusage then."""
    cpu, status = torch.device("cpu"), tmp_path / "status"
    usual = memory.peak_bytes(cpu)
    for text in (None, "VmRSS:\t1024 kB\n"):
        if text:
            status.write_text(text)
        monkeypatch.setattr(memory, "STATUS", status)
        assert memory.peak_bytes(cpu) >= usual // 2
    status.write_text("VmHWM:\t 2048 kB\n")
    assert memory.peak_bytes(cpu) == 2 << 20
