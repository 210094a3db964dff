"""Threads by what a process may use."""

from __future__ import annotations

import os

import pytest

from semiseg.pipelines.cores import cores
from semiseg.pipelines.host import HostBackend


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_affinity_and_the_control_group_bound_the_threads(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert cores(tmp_path / "cpu.max") == expected


def test_without_a_control_group_affinity_alone_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert cores(tmp_path / "none") == 1
    assert HostBackend([]).threads == 1
