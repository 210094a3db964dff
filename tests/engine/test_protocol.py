"""The settings by which a network is judged: what makes no sense, and what goes with the network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from semiseg.engine.evaluation.protocols import tiling
from semiseg.engine.protocol import Evaluation


@pytest.mark.parametrize("value", [-1.0, 0.0, math.inf, math.nan, 1e300])
@pytest.mark.parametrize("name", ["longest", "long_side", "scale", "scales"])
def test_a_protocol_that_shows_nothing_or_no_number_is_named(name, value):
    change = {name: (1.0, value) if name == "scales" else value}
    (fault,) = replace(Evaluation().resolve(64), **change).faults()
    assert fault.startswith(f"--{next(iter(change)).replace('_', '-')}: must be ")


@pytest.mark.parametrize(("name", "instead"), [("unimatch-whole", "dino-whole"), ("unimatch-slide", "unimatch2-slide")])
def test_a_network_that_takes_multiples_cannot_see_any_size(name, instead):
    (fault,) = Evaluation(protocol=name).resolve(28, 14).faults("--", multiple=14)
    assert fault.endswith(f"use {instead}")
    assert not list(Evaluation(protocol=instead).resolve(28, 14).faults("--", multiple=14))
    assert not list(Evaluation(protocol=name).resolve(28).faults("--"))


@pytest.mark.parametrize(("multiple", "kept"), [(1, 8), (2, 8), (8, 8), (14, 14), (16, 16), (32, 32)])
def test_the_multiple_is_the_published_one_where_the_network_takes_it(multiple, kept):
    protocol = Evaluation().resolve(64, multiple)
    assert protocol.multiple == kept
    assert tiling(protocol, 33, 47).size == (-(-33 // kept) * kept, -(-47 // kept) * kept)


@pytest.mark.parametrize("name", ["whole", "cac-whole"])
def test_of_equal_scores_the_earliest_is_the_best(name):
    protocol = Evaluation(protocol=name).resolve(64)
    assert not protocol.prefers(0.5, 0.5)
    assert protocol.prefers(0.5, math.nan)
