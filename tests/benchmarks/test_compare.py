"""Two results of one benchmark: which is slower, and what is not compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import compare

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "compare.py"


def document(ours: list[float], plain: list[float] = (1.0, 1.0, 1.0, 1.0), **environment) -> dict:
    return {
        "rounds": {"published_way": list(plain), "ours": ours},
        "settings": {"crop": 320},
        "environment": {"processor": "a", "cores": 2, "threads": 2, "gpu": None, "packages": {"torch": "2"}}
        | environment,
    }


@pytest.fixture
def judged(tmp_path):
    def run(base: dict, new: dict) -> subprocess.CompletedProcess:
        paths = [tmp_path / "base.json", tmp_path / "new.json"]
        for path, one in zip(paths, (base, new)):
            path.write_text(json.dumps(one))
        return subprocess.run([sys.executable, str(PROGRAM), *paths], capture_output=True, text=True)

    return run


def test_the_rank_test_is_exact():
    """All of four below all of four: one order of 70."""
    assert compare.slower([5, 6, 7, 8], [1, 2, 3, 4]) == pytest.approx(1 / 70)
    assert compare.slower([1, 2, 3, 4], [5, 6, 7, 8]) == 1
    assert compare.slower([1, 1], [1, 1]) == 1
    assert compare.slower([2, 3], [1, 4]) == pytest.approx(4 / 6)
    assert compare.slower([1, 2, 3], [2, 2]) == pytest.approx(7 / 10)
    assert compare.slower(list(range(40)), list(range(40, 80))) == 1


def test_slower_exits_with_1_and_as_fast_with_0(judged):
    base = document([2.0, 2.1, 2.05, 2.02])
    assert judged(base, document([1.5, 1.6, 1.55, 1.52])).returncode == 1
    assert judged(base, document([2.01, 2.07, 1.99, 2.06])).returncode == 0
    assert judged(base, document([3.0, 3.1, 3.05, 3.02])).returncode == 0


def test_a_slower_comparison_is_not_a_slower_program(judged):
    base = document([2.0, 2.1, 2.05, 2.02])
    assert judged(base, document([2.0, 2.1, 2.05, 2.02], [0.5, 0.4, 0.5, 0.4])).returncode == 0


@pytest.mark.parametrize("changes", [{"processor": "b"}, {"cores": 8}, {"packages": {"torch": "3"}}])
def test_results_of_other_machines_are_refused_in_one_line(judged, changes):
    done = judged(document([1.0, 1.0]), document([1.0, 1.0], **changes))
    assert done.returncode == 2
    assert "measure both alike" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_result_is_refused(judged):
    done = judged({"rounds": 3}, document([1.0]))
    assert done.returncode == 2
    assert "--json" in done.stderr
