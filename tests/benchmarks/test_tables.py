"""Figures of the documentation are those of the rows that are committed."""

from __future__ import annotations

from pathlib import Path

import pytest

import tables


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_tables_are_those_of_the_rows(page):
    text = (Path(__file__).parents[2] / page).read_text()
    assert tables.written(text) == text, "run `python benchmarks/tables.py`"


def test_a_table_is_made_of_the_newest_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    row = {"loader": "host", "machine": "a", "rate": 1.0, "ratio_to_plain": 1.0}
    for rate in (10.0, 20.0):
        tables.append([row | {"kind": kind, "rate": rate} for kind in ("labeled", "pairs")], tmp_path / "loader.csv")
    page = "before\n<!-- table loader -->\nold\n<!-- end -->\nafter\n"
    assert "| host | 20 | 20 | 1.0 | 1.0 |" in tables.written(page)
    assert tables.written(page).endswith("<!-- end -->\nafter\n")


def test_a_waterfall_compares_with_the_first_row_of_the_same_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    row = dict.fromkeys(tables.ALIKE, "1") | {"data_wait_pct": 3.0, "memory_gib": 0.5, "roof_pct": 40.0, "load": ""}
    row |= {"processor_s_an_image": 0.5, "joules_an_image": None, "first_loss": 3.0}
    for machine, rates in (("a", (2.0, 3.0)), ("b", (100.0, 400.0)), ("a", (1.0, 4.0))):
        rows = [
            row | {"machine": machine, "row": name, "images_per_s": rate, "last_loss": rate / 8}
            for name, rate in zip(("published way", "fused losses"), rates)
        ]
        tables.append(rows, tmp_path / "waterfall.csv")
    first, second = tables.waterfalls()
    assert [line[1:3] + line[-1:] for line in tables.waterfall_lines(first)] == [
        ["1.00", "1.00", "+0.0000"],
        ["4.00", "4.00", "+0.3750"],
    ]
    assert [line[1:3] for line in tables.waterfall_lines(second)] == [["100.00", "1.00"], ["400.00", "4.00"]]
    assert tables.waterfall().count("| published way |") == 2


def test_rows_go_below_the_columns_of_their_names(tmp_path):
    path = tmp_path / "some.csv"
    tables.append([{"a": 1, "b": 2}], path)
    tables.append([{"b": 4, "a": 3}], path)
    assert path.read_text().split() == ["a,b", "1,2", "3,4"]
    with pytest.raises(ValueError, match=r"other columns \(c\)"):
        tables.append([{"a": 1, "b": 2, "c": 3}], path)
