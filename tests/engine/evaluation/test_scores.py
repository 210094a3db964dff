"""What a confusion matrix says by the conventions of protocols."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semiseg.engine.evaluation.scores import ImageScores, Scores

CLASSES = ("ground", "car", "tree")


def test_conventions_for_absent_classes_and_background():
    counts = np.array([[8, 2, 0], [0, 10, 0], [0, 0, 0]])
    ground, car = 8 / 10, 10 / 12
    skip = Scores(counts, CLASSES)
    assert math.isnan(skip.iou["tree"])
    assert skip.miou == pytest.approx((ground + car) / 2)
    assert skip.pixel_accuracy == pytest.approx(18 / 20)
    assert replace(skip, background=False).miou == pytest.approx(car)
    zero = replace(skip, absent="zero")
    assert zero.iou["tree"] == 0
    assert zero.miou == pytest.approx((ground + car) / 3)
    assert replace(zero, background=False).miou == pytest.approx(car / 2)
    assert zero.pixel_accuracy == skip.pixel_accuracy
    missed = np.array([[8, 2, 0], [0, 10, 0], [5, 0, 0]])
    assert Scores(missed, CLASSES).iou["tree"] == 0  # in the truth, so it has a vote


def test_precision_recall_and_dice_of_each_class():
    """The truth holds 10, 10 and 5 pixels, the prediction 13, 12 and none; right are 8 and 10."""
    scores = Scores(np.array([[8, 2, 0], [0, 10, 0], [5, 0, 0]]), CLASSES)
    nan = math.nan
    assert [*scores.iou.values()] == pytest.approx([8 / 15, 10 / 12, 0])
    assert [*scores.precision.values()] == pytest.approx([8 / 13, 10 / 12, nan], nan_ok=True)
    assert [*scores.recall.values()] == pytest.approx([8 / 10, 1, 0])
    assert [*scores.dice.values()] == pytest.approx([16 / 23, 20 / 22, 0])
    assert scores.mdice == pytest.approx((16 / 23 + 20 / 22) / 3)
    assert replace(scores, background=False).mdice == pytest.approx(10 / 22)
    assert scores.pixels == 25
    turned = replace(scores, confusion=scores.confusion.T, absent="zero")  # trees are predicted, and there are none
    assert [*turned.precision.values()] == pytest.approx([8 / 10, 1, 0])
    assert [*turned.recall.values()] == pytest.approx([8 / 13, 10 / 12, nan], nan_ok=True)
    assert [*turned.dice.values()] == pytest.approx([*scores.dice.values()])


def test_a_class_that_is_nowhere_has_the_same_in_all_scores():
    skip = Scores(np.diag([1, 1, 0]), CLASSES)
    zero = replace(skip, absent="zero")
    for name in ("iou", "precision", "recall", "dice"):
        assert math.isnan(getattr(skip, name)["tree"])
        assert getattr(zero, name) == {"ground": 1, "car": 1, "tree": 0}
    assert (skip.mdice, zero.mdice) == pytest.approx((1, 2 / 3))


@given(arrays(np.int64, (3, 3), elements=st.just(0) | st.integers(0, 10**9)), st.sampled_from(["zero", "skip"]))
def test_scores_hang_together(counts, absent):
    scores = Scores(counts, CLASSES, absent=absent)
    iou, precision, recall, dice = (
        np.array([*one.values()]) for one in (scores.iou, scores.precision, scores.recall, scores.dice)
    )
    for shares in (iou, precision, recall, dice):
        assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    found = precision + recall > 0
    harmonic = 2 * precision[found] * recall[found] / (precision + recall)[found]
    np.testing.assert_allclose(dice[found], harmonic)
    np.testing.assert_array_equal(np.isnan(iou), np.isnan(precision) & np.isnan(recall))
    turned = replace(scores, confusion=counts.T)
    np.testing.assert_array_equal([*turned.precision.values()], recall)


def test_the_worst_image_comes_first_and_one_without_a_score_last():
    named = [("b", 0.5), ("none", math.nan), ("a", 0.5), ("worst", 0.0), ("c", 0.25)]
    images = sorted((ImageScores(name, miou, 1.0, 1) for name, miou in named), key=lambda one: one.rank)
    assert [one.image for one in images] == ["worst", "c", "a", "b", "none"]


def test_without_anything_to_judge_there_is_no_score():
    nothing = np.zeros((3, 3), np.int64)
    assert math.isnan(Scores(nothing, CLASSES, absent="zero").miou)
    assert math.isnan(Scores(nothing, CLASSES, absent="zero").mdice)
    assert math.isnan(Scores(nothing, CLASSES, absent="zero").pixel_accuracy)
    nothing[0, 0] = 1
    assert Scores(nothing, CLASSES).pixel_accuracy == 1
    assert math.isnan(Scores(nothing, CLASSES, background=False).miou)
