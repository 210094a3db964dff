"""The class bank against lists."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.engine.methods.class_bank import ClassBank


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=6))
def test_each_class_holds_what_entered_last(pushes):
    bank, lists, number = ClassBank(3, 5, 2), [[], [], []], 0
    for counts in pushes:
        features = torch.zeros(3, 4, 2)
        for features_of_class, held, count in zip(features, lists, counts):
            for row in features_of_class:
                number += 1
                row[0] = number
            held += features_of_class[:count, 0].tolist()
            del held[:-5]
        bank.push(features, torch.tensor(counts))
    assert bank.held.tolist() == [len(held) for held in lists]
    for features, held in zip(bank.features, lists):
        assert set(features[: len(held), 0].tolist()) == set(held)


def test_draws_are_spread_over_what_is_held_of_the_class_that_is_asked_for():
    bank = ClassBank(2, 4, 1)
    bank.push(torch.tensor([[[1.0], [2.0], [3.0]], [[5.0], [6.0], [7.0]]]), torch.tensor([3, 1]))
    draws = torch.tensor([[[0.0, 0.34, 0.99]], [[0.0, 0.5, 0.99]]])
    assert bank.drawn(draws, torch.tensor([0, 1]))[..., 0].tolist() == [[[1, 2, 3]], [[5, 5, 5]]]
    assert bank.drawn(draws, torch.tensor([1, 0]))[..., 0].tolist() == [[[5, 5, 5]], [[1, 2, 3]]]
