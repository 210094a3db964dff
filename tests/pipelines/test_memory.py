import resource

import pytest

from semiseg.pipelines.memory import free_memory, whole_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 1000 KiB free, and a control group that may have limits."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\n")

    def free(limit=None, used=0, inactive=0):
        if limit is not None:
            (tmp_path / "memory.max").write_text(f"{limit}\n")
            (tmp_path / "memory.current").write_text(f"{used}\n")
            (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {inactive}\n")
        return free_memory(tmp_path / "meminfo", tmp_path)

    return free


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ((), 1_024_000),
        (("max",), 1_024_000),
        ((5_000_000, 4_500_000), 500_000),
        ((5_000_000, 4_500_000, 300_000), 800_000),
        ((5_000_000, 5_100_000), 0),
        ((9_000_000, 1000), 1_024_000),
    ],
)
def test_the_smaller_of_what_machine_and_group_have(machine, group, expected):
    assert machine(*group) == expected


def test_the_limit_of_the_process_counts_too(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**50, 2**50))
    assert machine() == 1_024_000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert machine() == 0


def test_nothing_known_is_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert free_memory(tmp_path / "none", tmp_path) is None
    assert whole_memory(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("limit", "expected"), [(None, 9_216_000), ("max", 9_216_000), (5_000_000, 5_000_000)])
def test_what_there_is_does_not_depend_on_what_is_used(machine, tmp_path, limit, expected):
    machine(limit, 4_000_000)
    assert whole_memory(tmp_path / "meminfo", tmp_path) == expected
