"""Means, spreads and gains of a comparison, as lines, tables and CSV."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest

from semiseg.engine.comparison.results import (
    Spread,
    finished_of,
    higher_beside,
    lines_of,
    markdown,
    plain_lines,
    table,
    write_csv,
)
from semiseg.pipelines.errors import UsageError

METHODS = ["supervised_folder", "cps_folder"]
LAST = {("supervised_folder", 0): 0.5, ("supervised_folder", 1): 0.6, ("cps_folder", 0): 0.53, ("cps_folder", 1): 0.69}


@pytest.fixture
def comparison(planned, finish):
    comparison = planned(METHODS, ["1/2"], 2)
    for entry in comparison.entries:
        finish(entry, LAST[entry.method, entry.seed])
    return comparison


def test_a_line_has_the_mean_and_the_spread_and_the_gain_is_that_of_pairs(comparison):
    baseline, rival = lines_of(comparison, finished_of(comparison))
    assert (baseline.method, baseline.best_gain, baseline.last_gain) == ("supervised_folder", None, None)
    assert baseline.last.mean == pytest.approx(0.55)
    assert baseline.last.deviation == pytest.approx(0.1 / math.sqrt(2))
    assert baseline.best.mean == pytest.approx(0.56)
    assert rival.last_gain.mean == pytest.approx(0.06)
    assert rival.last_gain.deviation == pytest.approx(0.06 / math.sqrt(2))  # of 0.03 and 0.09, not of the scores
    assert rival.mean("images_per_s") == 10.5
    assert rival.hours == 4  # two runs of an hour on two threads each


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("result.json", "seconds", None), ("result.json", "iou", 0.5), ("environment.json", "threads", "two")],
)
def test_a_file_of_a_run_without_what_a_row_needs_is_named(comparison, name, field, value):
    path = comparison.entries[1].folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UsageError, match=rf"{name}: missing or damaged \({field}: must be "):
        finished_of(comparison)


def test_a_student_that_ends_above_its_teacher_is_told(planned, finish):
    """The table has the teacher's scores, which lags after few steps."""
    comparison = planned(["supervised_folder", "fixmatch_folder"], ["1/2"], 3)
    students = [0.58, 0.55, 0.62]
    for entry in comparison.entries:
        beside = {"student": students[entry.seed]} if entry.method == "fixmatch_folder" else {}
        finish(entry, 0.5 + 0.03 * entry.seed, beside=beside)
    finished = finished_of(comparison)
    lines = lines_of(comparison, finished)
    (told,) = higher_beside(lines)
    assert "fixmatch_folder, 1/2: the student ends higher in 3 of 3 runs, with 58.33 % on the mean" in told
    assert plain_lines(lines)[1]["student_last"] == pytest.approx(0.5833, abs=1e-4)
    assert "student_last" not in plain_lines(lines)[0]
    write_csv(comparison.out / "results.csv", finished)
    rows = list(csv.DictReader((comparison.out / "results.csv").open()))
    assert [row["student/last"] for row in rows if row["method"] == "fixmatch_folder"] == [str(one) for one in students]
    lower = [replace(one, result=one.result | {"last": 0.7}) for one in finished]
    assert higher_beside(lines_of(comparison, lower)) == []


def test_gains_are_of_the_seeds_that_both_have(planned, finish):
    comparison = planned(METHODS, ["1/2"], 3)
    for entry in comparison.entries:
        if (entry.method, entry.seed) not in (("supervised_folder", 2), ("cps_folder", 0)):
            finish(entry, 0.5 + 0.1 * entry.seed + 0.02 * (entry.method == "cps_folder"))
    lines = lines_of(comparison, finished_of(comparison))
    rival = lines[1]
    assert rival.last.mean == pytest.approx(0.67)
    assert (rival.last_gain.mean, rival.last_gain.deviation) == (pytest.approx(0.02), None)
    _, rows = table(lines)
    assert [row[3] for row in rows] == ["2 (0, 1)", "2 (1, 2)"]
    assert [row[7] for row in rows] == ["", "+2.00 (of 1)"]
    assert plain_lines(lines)[1]["gain_seeds"] == 1


def test_a_score_that_is_no_number_is_none_of_the_table(planned, finish):
    comparison = planned(METHODS)
    finish(comparison.entries[0], None)
    finish(comparison.entries[1], 0.5)
    lines = lines_of(comparison, finished_of(comparison))
    _, rows = table(lines)
    assert [row[6] for row in rows] == ["-", "50.00"]
    assert rows[1][7] == "-"
    assert plain_lines(lines)[1]["last_gain"] is None


def test_the_table_of_a_person_has_gains_in_a_column_of_their_own(comparison):
    columns, rows = table(lines_of(comparison, finished_of(comparison)))
    assert columns[:8] == ["method", "labelled", "steps", "seeds", "mIoU best %", "gain", "mIoU last %", "gain"]
    assert rows[0][:8] == ["supervised_folder", "4 (1/2)", "20", "2 (0, 1)", "56.00 ± 7.07", "", "55.00 ± 7.07", ""]
    assert rows[1][6:] == ["61.00 ± 11.31", "+6.00 ± 4.24", "10.5", "1.0", "0.50", "4.00"]
    assert columns[-1] == "core h"
    assert (
        markdown(columns, rows)
        .splitlines()[2]
        .startswith("| supervised_folder | 4 (1/2) | 20 | 2 (0, 1) | 56.00 ± 7.07 |  |")
    )


@pytest.mark.parametrize(
    ("values", "text"), [([0.5], "+50.00"), ([-0.01, -0.03], "-2.00 ± 1.41"), ([None], "-"), ([0.1, None], "-")]
)
def test_spreads(values, text):
    assert Spread.of(values).text(signed=True) == text
    assert Spread.of([]) is None


def test_csv_has_a_row_a_run_with_all_that_it_takes_to_make_it_again(comparison, finish, tmp_path):
    path = tmp_path / "results.csv"
    write_csv(path, finished_of(comparison)[:3])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("supervised_folder", "0"),
        ("cps_folder", "0"),
        ("supervised_folder", "1"),
    ]
    row = rows[1]
    assert (float(row["last"]), float(row["best"]), row["best_step"]) == (0.53, 0.54, "10")
    assert (row["split"], row["checksum"]) == ("draw:1/2@0", "0123abcd")
    assert (row["machine"], row["torch"], row["commit"]) == ("a processor", "2.0", "c0ffee")
    assert row["command"] == "semiseg train cps_folder --seed 0"
    assert float(row["iou/car"]) == pytest.approx(0.63)
