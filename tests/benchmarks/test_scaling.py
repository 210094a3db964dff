"""What links make of exchanges, and rows that are what the program says."""

from __future__ import annotations

import pytest

import exchange
import rowfile
import scaling
from exchange import Exchange, Taken
from scaling import Link, Links, fitted, seconds
from semiseg.pipelines.errors import UsageError

SLOW, FAST = Link(100.0, 3.0), Link(1000.0, 1.0)
LINKS = Links("two levels", FAST, SLOW, Link(10.0, 5.0))


def test_a_sum_is_made_within_nodes_and_then_between_them():
    """By hand: of 800 bytes seven eighths leave a process, and come back, in three rounds each way; between two nodes
    each process has an eighth, of which one half goes and comes."""
    within = 2 * (3 * 1.0 + 700 / 1000)
    assert seconds(Exchange("gradients", "all_reduce", 800), 8, LINKS) == pytest.approx(within)
    between = 2 * (1 * 3.0 + 50 / 100)
    assert seconds(Exchange("gradients", "all_reduce", 800), 16, LINKS) == pytest.approx(within + between)


def test_rows_are_gathered_between_nodes_and_then_within_them():
    assert seconds(Exchange("negatives", "all_gather", 100), 4, LINKS) == pytest.approx(2 * 1.0 + 300 / 1000)
    both = 3.0 + 100 / 100 + 3 * 1.0 + 7 * 200 / 1000
    assert seconds(Exchange("negatives", "all_gather", 100), 16, LINKS) == pytest.approx(both)


def test_signals_go_between_hosts():
    assert seconds(Exchange("signals", "all_reduce", 16), 2, LINKS) == pytest.approx(2 * (5.0 + 8 / 10))


def test_a_link_is_found_from_the_sums_that_it_makes():
    link = Link(2e9, 3e-4)
    found = fitted({size: link.reduce(size, 4) for size in exchange.SIZES}, 4)
    assert (found.bandwidth, found.latency) == pytest.approx((link.bandwidth, link.latency))


def test_the_contrast_with_others_grows_with_their_negatives():
    recipes = {count: scaling.recipe_of("cac", count, backbone="resnet50", crop=320, batch=8) for count in (1, 2, 64)}
    one, two, many = (scaling.contrast_ms(recipe, count) for count, recipe in recipes.items())
    assert (one, many) == (0, pytest.approx(63 * two))
    row = scaling.newest("kernels", {"operator": "directional_contrast", "size": "voc-r101-all", "provider": "fused"})
    assert two == pytest.approx(float(row["ms"]) * (12800 / 6400) * (51200 / 76800))


def test_a_step_that_nobody_measured_is_asked_for():
    recipe = scaling.recipe_of("cac", 2, backbone="resnet50", crop=64, batch=8)
    with pytest.raises(UsageError, match=r"step.csv: no row of an NVIDIA H200 with .*'crop': 64.*; measure one first"):
        scaling.step_ms(recipe, 2)


def test_processes_that_exchange_something_else_are_no_rows(monkeypatch):
    monkeypatch.setattr(scaling, "exchanges", lambda *_: [Exchange("gradients", "all_reduce", 8)])
    for sizes in ((8,), (12,), (8, 8)):
        found = Taken(
            [Exchange("gradients", "all_reduce", size) for size in sizes],
            [[0.25, 0.5, 1.0]] * len(sizes),
            {size: [SLOW.reduce(size, 2), 1e9] for size in exchange.SIZES},
        )
        monkeypatch.setattr(scaling, "taken", lambda *_, found=found: found)
        if sizes == (8,):
            (row,) = scaling.checked("cac", 3)
            assert (row["calls"], row["bytes"], row["quickest_ms"], row["median_ms"]) == (1, 8, 250, 500)
            assert row["predicted_ms"] == pytest.approx(1e3 * SLOW.reduce(8, 2))
        else:
            with pytest.raises(RuntimeError, match="cac: two processes exchange"):
                list(scaling.checked("cac", 3))


def test_the_rows_are_what_the_program_says():
    """Of eight GPUs; after a change of the network, of what is exchanged or of the step's rows make them anew."""
    keys = ("kind", "links", "calls", "bytes", "predicted_ms")
    said = {tuple(str(row[key]) for key in keys) for row in scaling.predicted("cac", [8])}
    rows = rowfile.newest("scaling", "method", "processes", "links", "kind")
    assert {
        tuple(row[key] for key in keys) for row in rows if (row["method"], row["processes"]) == ("cac", "8")
    } == said
