"""The plots show the rows that are committed."""

from __future__ import annotations

import statistics

import plot
import tables
import trainings


def test_the_waterfall_is_that_of_the_rows():
    words = plot.WATERFALL.read_text()
    for rows in tables.waterfalls():
        for row in rows:
            assert f">{row['row']}<" in words, "run `python benchmarks/plot.py`"
            for column in plot.COLUMNS:
                value, first = float(row[column]), float(rows[0][column])
                assert f">{value:.2f}  ({value / first:.2f}x)<" in words, "run `python benchmarks/plot.py`"


def test_the_comparison_is_that_of_the_rows():
    words = plot.PHOTOGRAPHS.read_text()
    for one in trainings.gains():
        assert f">{plot.headed(one)}<" in words, "run `python benchmarks/plot.py`"
        for (method, labeled), points in one.points.items():
            for line in plot.broken(method, labeled).splitlines():
                assert f">{line}<" in words, "run `python benchmarks/plot.py`"
            mean = f">{statistics.fmean(points):+.1f}<".replace("-", "\N{MINUS SIGN}")
            assert mean in words.replace(">-", ">\N{MINUS SIGN}")


def test_the_same_rows_give_the_same_file(tmp_path):
    row = dict.fromkeys((*tables.ALIKE, *plot.COLUMNS), "2.0") | {"row": "published way"}
    rows = [row, row | {"row": "fused losses", "images_per_s": "3.0"}]
    for name in ("a.svg", "b.svg"):
        plot.waterfall([rows, rows], tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert b"3.00  (1.50x)" in first
