"""Two results of one benchmark: which is slower, and what is not compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import compare
from semiseg.pipelines.errors import UsageError

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "compare.py"


def document(ours: list[float], plain: list[float] = (1.0, 1.0, 1.0, 1.0), **environment) -> dict:
    return {
        "rounds": {"published_way": list(plain), "ours": ours},
        "settings": {"crop": 320},
        "environment": {
            "processor": "a",
            "instructions": "AVX2",
            "cores": 2,
            "threads": 2,
            "gpu": None,
            "packages": {"torch": "2"},
        }
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


@pytest.fixture
def refused(tmp_path):
    """What is said of two documents that are not compared."""

    def say(*documents: dict) -> str:
        paths = [tmp_path / "base.json", tmp_path / "new.json"]
        for path, one in zip(paths, documents, strict=True):
            path.write_text(json.dumps(one))
        with pytest.raises(UsageError) as error:
            compare.main(*paths)
        return str(error.value)

    return say


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


@pytest.mark.parametrize(
    "changes", [{"processor": "b"}, {"instructions": "AVX512"}, {"cores": 8}, {"packages": {"torch": "3"}}]
)
def test_results_of_other_machines_are_refused(refused, changes):
    assert "measure both alike" in refused(document([1.0, 1.0]), document([1.0, 1.0], **changes))


def test_what_is_refused_is_told_in_one_line(judged):
    done = judged({"rounds": 3}, document([1.0] * 4))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


@pytest.mark.parametrize(
    "broken",
    [
        {"rounds": 3},
        {"rounds": {}},
        *({"rounds": {"ours": rates}} for rates in ([], ["a"], [0.0] * 4, [float("nan")] * 4, [1.0, -1.0], 3.0)),
        *({name: value} for name in ("environment", "settings") for value in (None, [1])),
        {"environment": {}},
        {"environment": {"packages": None}},
    ],
)
def test_what_is_no_result_is_refused(refused, broken):
    base = document([1.0] * 4)
    for pair in ((base | broken, base), (base, base | broken)):
        assert "is not what a benchmark printed with --json" in refused(*pair)


def test_rounds_that_could_not_tell_are_refused(refused):
    said = refused(document([2.0, 2.1, 2.05], [1.0] * 3), document([0.1, 0.2, 0.3], [1.0] * 3))
    assert "3 and 3 rounds are too few to tell lower rates from chance: measure both with --rounds 4" in said


def test_rates_that_one_result_has_alone_are_refused(refused):
    base, more = document([2.0] * 4), document([2.0] * 4)
    more["rounds"]["resident"] = [1.0] * 4
    for pair in ((base, more), (more, base)):
        assert "only one result has resident" in refused(*pair)
