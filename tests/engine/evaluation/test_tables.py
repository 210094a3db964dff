"""Tables of an evaluation: what stands in them, and what they do not take the place of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semiseg.engine.evaluation.scores import ImageScores, Scores
from semiseg.engine.evaluation.tables import require_tables_own, write_tables
from semiseg.pipelines.errors import UsageError

SCORES = Scores(
    np.array([[8, 2, 0], [0, 10**7, 0], [0, 0, 0]]),
    ("ground", "car, blue", "tree"),
    images=(ImageScores("day/b", 1e-7, 0.5, 10**7), ImageScores("a", math.nan, math.nan, 0)),
)


def test_numbers_are_plain_and_missing_ones_are_empty(tmp_path):
    write_tables(tmp_path, SCORES)
    assert {path.name: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.iterdir()} == {
        "scores.csv": [
            "class,iou,precision,recall,dice,pixels",
            "ground,0.800000,1.000000,0.800000,0.888889,10",
            '"car, blue",1.000000,1.000000,1.000000,1.000000,10000000',
            "tree,,,,,0",
        ],
        "images.csv": [
            "image,miou,pixel_accuracy,pixels",
            "day/b,0.000000,0.500000,10000000",
            "a,,,0",
        ],
        "confusion.csv": [
            'truth \\ prediction,ground,"car, blue",tree',
            "ground,8,2,0",
            '"car, blue",0,10000000,0',
            "tree,0,0,0",
        ],
    }


@pytest.mark.parametrize("name", ["scores.csv", "images.csv", "confusion.csv"])
def test_only_tables_of_an_evaluation_are_written_over(tmp_path, name):
    require_tables_own(tmp_path / "new")
    write_tables(tmp_path, SCORES)
    require_tables_own(tmp_path)
    (tmp_path / name).write_text("class,image,mine\n")
    with pytest.raises(UsageError, match=rf"--out: .*{name} is there and not of an evaluation: choose another folder"):
        require_tables_own(tmp_path)
