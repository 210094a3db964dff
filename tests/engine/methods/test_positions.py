"""Positions as rows, by class and over processes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from semiseg.engine.methods.positions import class_rows, evenly_spaced, local_rows, nearest, nth, one_hot, rows


def test_rows_and_classes_count_positions_alike():
    maps = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5).half()
    assert rows(maps).dtype == torch.float32
    assert torch.equal(rows(maps).T, class_rows(maps).float())
    assert rows(maps.double()).dtype == torch.float64


def test_pixels_at_positions_are_torch_s_nearest_and_classes_none_where_ignored():
    pixels = torch.randint(0, 3, (2, 33, 33), dtype=torch.uint8)
    pixels[0, :9] = 255
    found = nearest(pixels, (9, 9))
    places = torch.arange(9) * 33 // 9
    assert torch.equal(found[:, 0], pixels[:, places][:, :, places])
    assert nearest(pixels > 0, (9, 9)).dtype == torch.bool
    classes = one_hot(found, 3)
    assert torch.equal(classes.sum(1) == 0, found[:, 0] == 255)
    assert torch.equal(classes.byte().argmax(1)[found[:, 0] != 255], found[:, 0][found[:, 0] != 255].long())


@given(arrays.arrays(bool, (3, 12)))
def test_the_nth_is_where_counting_finds_it(mask):
    found = nth(torch.from_numpy(mask), torch.arange(12.0).expand(3, 12) + 0.5)
    for row, places in zip(mask, found.tolist()):
        held = np.flatnonzero(row).tolist()
        assert places == held + [12] * (12 - len(held))


def test_of_more_than_are_taken_those_evenly_spaced_are():
    assert evenly_spaced(torch.tensor([2, 4, 9]), 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 4, 6]]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_each_place_is_a_row_of_one_process(processes, labeled, unlabeled):
    """All processes' rows are numbered as they lie: labelled ones of all, then the others of all."""
    everyone = [(rank, row) for rank in range(processes) for row in range(labeled)]
    everyone += [(rank, labeled + row) for rank in range(processes) for row in range(unlabeled)]
    place = torch.arange(len(everyone) + 1)  # the last one is nobody's
    found = [local_rows(place, labeled, unlabeled, processes, rank) for rank in range(processes)]
    for index, (rank, row) in enumerate(everyone):
        assert [bool(mine[index]) for _, mine in found] == [other == rank for other in range(processes)]
        assert int(found[rank][0][index]) == row
    assert not any(mine[-1] for _, mine in found)
    assert all((row >= 0).all() and (row < labeled + unlabeled).all() for row, _ in found)
