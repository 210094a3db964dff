"""What a confusion matrix says by the conventions of protocols."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from semiseg.engine.evaluation.scores import Scores

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


def test_without_anything_to_judge_there_is_no_score():
    nothing = np.zeros((3, 3), np.int64)
    assert math.isnan(Scores(nothing, CLASSES, absent="zero").miou)
    assert math.isnan(Scores(nothing, CLASSES, absent="zero").pixel_accuracy)
    nothing[0, 0] = 1
    assert Scores(nothing, CLASSES).pixel_accuracy == 1
    assert math.isnan(Scores(nothing, CLASSES, background=False).miou)
