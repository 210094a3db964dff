"""What photographs gain is computed from the runs that belong together."""

from __future__ import annotations

from statistics import fmean

import pytest

import trainings


def test_gains_are_over_the_same_draw_and_the_classes_that_count():
    rows = trainings.compared("animals")
    own, before = (
        {row["seed"]: row for row in rows["1/8", f"{name}_folder"]}["1"] for name in ("fixmatch", "supervised")
    )
    seven = [float(own[f"iou/{name}"]) - float(before[f"iou/{name}"]) for name in trainings.ANIMALS]
    (animals,) = (one for one in trainings.gains() if one.title == "Animals of VOC")
    assert animals.points["fixmatch_folder", "54"][1] == pytest.approx(100 * fmean(seven))


def test_what_had_all_labels_is_compared_with_the_mean_of_all_draws():
    """One run of it beside three draws: that of the same seed is one of them, and may be the weakest."""
    rows = trainings.compared("camvid_settled")
    mean = fmean(float(row["last"]) for row in rows["1/16", "supervised_folder"])
    (everything,) = rows["all", "supervised_folder"]
    (settled,) = (one for one in trainings.gains() if one.title == "CamVid, longer")
    assert settled.points["supervised_folder", "367"] == [pytest.approx(100 * (float(everything["last"]) - mean))]
