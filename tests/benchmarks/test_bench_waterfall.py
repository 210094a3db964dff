"""The waterfall: a row is measured in a process of its own, rows go to a file and are not measured twice."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench_waterfall
from semiseg.pipelines.errors import UsageError

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_waterfall.py"
TINY = {"crop": 32, "batch": 2, "steps": 5, "device": "cpu", "threads": 1}


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the processes: the `names` of the rows that were measured, and the one that `fails`."""
    names: list[str] = []

    def alone(name, options, compiled):
        if name == measured.fails:
            raise UsageError(f"the row {name!r} failed")
        names.append(name)
        rate, loss = 2.0 + len(names), 3.0 - len(names) / 8
        return {
            "graph": False,
            "images_per_s": rate,
            "data_wait_pct": 1.0,
            "memory_gib": 0.5,
            "roof_tflops": 0.1,
            "processor_s_an_image": 0.25,
            "joules_an_image": None,
            "first_loss": 3.0,
            "last_loss": loss,
        }

    measured = SimpleNamespace(names=names, fails=None)
    monkeypatch.setattr(bench_waterfall, "alone", alone)
    monkeypatch.setattr(bench_waterfall, "forecast", lambda *_: SimpleNamespace(flops=6e10))
    monkeypatch.setenv("SEMISEG_COMMIT", "abc")
    return measured


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_row_prints_what_it_measured(voc_root):
    options = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(PROGRAM), "--data", str(voc_root()), "--row", "fused losses", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["images_per_s"] > 0
    assert row["roof_tflops"] > 0
    assert 0 < row["processor_s_an_image"] < 10
    assert 0.05 < row["memory_gib"] < 10
    assert 0 <= row["data_wait_pct"] <= 100
    assert row["first_loss"] > 0
    assert row["last_loss"] != row["first_loss"]
    assert row["graph"] is False


def test_rows_are_appended_and_not_measured_again(measured, voc_root, tmp_path, capsys):
    data, results = voc_root(), tmp_path / "waterfall.csv"
    bench_waterfall.main(data, **TINY, json=True, results=results)
    first = json.loads(capsys.readouterr().out)
    names = list(measured.names)
    assert names[:2] == ["published way", "loader in threads"]
    assert [row["row"] for row in rows_of(results)] == names
    assert [row["draws"] for row in rows_of(results)] == ["its own", *["planned"] * (len(names) - 1)]
    assert first["environment"]["packages"]["torch"]
    assert first["settings"]["crop"] == 32
    assert first["rows"][1]["roof_pct"] == pytest.approx(100 * 4.0 * 6e10 / 6 / 1e11)  # rate x FLOP an image / roof

    bench_waterfall.main(data, **TINY, json=True, results=results)
    assert measured.names == names
    assert json.loads(capsys.readouterr().out)["rows"] == first["rows"]


@pytest.mark.parametrize("other", [{"crop": 64}, {"load": "busy"}, {"method": "supervised"}])
def test_rows_of_other_settings_are_measured_for_themselves(measured, voc_root, tmp_path, other):
    data, results = voc_root(), tmp_path / "waterfall.csv"
    bench_waterfall.main(data, **TINY, results=results)
    names = list(measured.names)
    bench_waterfall.main(data, **TINY | other, results=results)
    assert measured.names == [*names, *names]


def test_rows_of_files_that_were_changed_are_not_trusted(measured, voc_root, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_COMMIT", "abc-dirty")
    data, results = voc_root(), tmp_path / "waterfall.csv"
    for _ in range(2):
        bench_waterfall.main(data, **TINY, results=results)
    assert measured.names.count("published way") == 2


def test_a_row_that_fails_keeps_those_before_it(measured, voc_root, tmp_path):
    data, results = voc_root(), tmp_path / "waterfall.csv"
    measured.fails = "fused losses"
    with pytest.raises(UsageError, match="fused losses"):
        bench_waterfall.main(data, **TINY, results=results)
    kept = [row["row"] for row in rows_of(results)]
    assert kept == measured.names == ["published way", "loader in threads", "decoded images"]
    measured.fails = None
    bench_waterfall.main(data, **TINY, results=results)
    assert [row["row"] for row in rows_of(results)] == measured.names
    assert len(set(measured.names)) == len(measured.names)


def test_the_table_compares_with_the_first_row(measured, voc_root, capsys):
    bench_waterfall.main(voc_root(), **TINY)
    head, first, second, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["adds", "images/s"]
    assert first.split()[-3:] == ["3.0000", "2.8750", "+0.0000"]
    assert second.split()[-3:] == ["3.0000", "2.7500", "-0.1250"]


@pytest.mark.parametrize("steps", [0, 7])
def test_steps_that_have_no_fifths_are_refused(voc_root, steps):
    with pytest.raises(UsageError, match=r"^--steps: must be a multiple of 5"):
        bench_waterfall.main(voc_root(), **TINY | {"steps": steps})


def test_a_wrong_root_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run([sys.executable, str(PROGRAM), "--data", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
