"""Figures of the documentation are those of the rows that are committed."""

from __future__ import annotations

from pathlib import Path

import pytest

import rowfile
import tables


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_tables_are_those_of_the_rows(page):
    text = (Path(__file__).parents[2] / page).read_text()
    assert tables.written(text) == text, "run `python benchmarks/tables.py`"


def test_a_table_is_made_of_the_newest_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(rowfile, "RESULTS", tmp_path)
    row = {"loader": "host", "machine": "a", "rate": 1.0, "ratio_to_plain": 1.0}
    for rate in (10.0, 20.0):
        rowfile.append([row | {"kind": kind, "rate": rate} for kind in ("labeled", "pairs")], tmp_path / "loader.csv")
    page = "before\n<!-- table loader -->\nold\n<!-- end -->\nafter\n"
    assert "| host | 20 | 20 | 1.0 | 1.0 |" in tables.written(page)
    assert tables.written(page).endswith("<!-- end -->\nafter\n")


def test_a_waterfall_compares_with_the_first_row_of_the_same_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(rowfile, "RESULTS", tmp_path)
    row = dict.fromkeys(tables.ALIKE, "1") | {"data_wait_pct": 3.0, "memory_gib": 0.5, "roof_pct": 40.0, "load": ""}
    row |= {"processor_s_an_image": 0.5, "joules_an_image": None, "first_loss": 3.0}
    for machine, rates in (("a", (2.0, 3.0)), ("b", (100.0, 400.0)), ("a", (1.0, 4.0))):
        rows = [
            row | {"machine": machine, "row": name, "images_per_s": rate, "last_loss": rate / 8}
            for name, rate in zip(("published way", "fused losses"), rates)
        ]
        rowfile.append(rows, tmp_path / "waterfall.csv")
    first, second = tables.waterfalls()
    assert [line[1:3] + line[-1:] for line in tables.waterfall_lines(first)] == [
        ["1.00", "1.00", "+0.0000"],
        ["4.00", "4.00", "+0.3750"],
    ]
    assert [line[1:3] for line in tables.waterfall_lines(second)] == [["100.00", "1.00"], ["400.00", "4.00"]]
    assert tables.waterfall().count("| published way |") == 2


def test_what_several_gpus_add_is_set_beside_the_step_of_one(tmp_path, monkeypatch):
    """By hand: 2 GPUs take 10 + 2 ms to compute and 4 + 1 + 3 to exchange with the first link, 38 with the second."""
    monkeypatch.setattr(rowfile, "RESULTS", tmp_path)
    times = {"step": 10, "contrast": 2, "signals": 1, "others": 3}
    rows = [
        {"method": "cac", "processes": 2, "links": links, "kind": kind, "predicted_ms": ms}
        for links, gradients in (("NVLink", 4), ("PCIe", 34), ("gloo", 99))
        for kind, ms in (times | {"gradients": gradients}).items()
    ]
    rowfile.append(rows, tmp_path / "scaling.csv")
    cells = "2 | 10.0 | 2.0 | 4.0 / 34.0 | 0.0 / 0.0 | 0.0 / 0.0 | 4.0 / 4.0 | 40.0 / 76.0 | 1.0 / 0.4"
    assert tables.scaling().splitlines()[2:] == [f"| cac | {cells} |"]


def test_an_operator_is_unmeasured_where_no_machine_of_the_kind_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rowfile, "RESULTS", tmp_path)
    machines = {"cutmix": ("NVIDIA X", "a"), "upsample": ("a",), "photometric": ("NVIDIA X",)}
    rows = [{"operator": name, "machine": machine} for name, several in machines.items() for machine in several]
    rowfile.append(rows, tmp_path / "kernels.csv")
    gpu, cpu = tables.unmeasured().splitlines()[2:]
    assert ("`upsample`" in gpu, "`photometric`" in gpu, "`cutmix`" in gpu) == (True, False, False)
    assert ("`upsample`" in cpu, "`photometric`" in cpu, "`cutmix`" in cpu) == (False, True, False)
