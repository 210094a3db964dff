"""The list of images worth labelling next: what a row says, in which order they come, and that it is there whole."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from semiseg.engine.evaluation.confidence import HEADER, UNSURE, Confidence, clear, write_csv
from semiseg.pipelines.errors import UsageError
from semiseg.recipes.own import THRESHOLD

CLASSES = ("ground", "car", "tree")


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def test_what_a_row_says():
    mask = np.array([[0, 0, 1, 1], [1, 2, 2, 0]], np.uint8)
    sure = np.array([[0.9, 0.8, 0.5, 0.6], [0.9, 0.4, 1.0, 0.7]], np.float32)
    row = Confidence.of("a.jpg", mask, sure, CLASSES)
    assert (row.confidence, row.unsure_pct, row.unsure_class) == (0.725, 50.0, "car")
    row = Confidence.of("a.jpg", mask, np.full((2, 4), UNSURE, np.float32), CLASSES)
    assert (row.unsure_pct, row.unsure_class) == (0.0, "")


def test_pixels_are_unsure_where_own_images_take_no_pseudo_label():
    assert UNSURE == THRESHOLD


def test_the_least_sure_comes_first_and_then_the_name(tmp_path):
    rows = [Confidence(name, sure, 1.0, "car") for name, sure in [("c", 0.5), ("a", 0.9), ("b", 0.5), ("d", 0.1)]]
    for given in (rows, rows[::-1]):
        assert [row.image for row in write_csv(tmp_path / "x.csv", given)] == ["d", "b", "c", "a"]
        assert [row["image"] for row in read(tmp_path / "x.csv")] == ["d", "b", "c", "a"]


def test_names_come_back_as_they_are(tmp_path):
    names = ["a,b.jpg", 'say "hi".jpg', "day/ü 夜.jpg", "two\nlines.jpg", "=1+1.jpg"]
    write_csv(tmp_path / "x.csv", [Confidence(name, 1 / 3, 100.0, 'road, "wet"') for name in names])
    rows = read(tmp_path / "x.csv")
    assert sorted(row["image"] for row in rows) == sorted(names)
    assert {tuple(row.values())[1:] for row in rows} == {("0.333333", "100.0000", 'road, "wet"', "")}


@pytest.mark.parametrize("before", [[], [Confidence("old", 0.5, 0.0, "")]])
def test_an_interruption_leaves_the_table_as_it_was(tmp_path, before):
    class Interrupting(float):
        def __format__(self, spec):
            raise KeyboardInterrupt

    path = tmp_path / "x.csv"
    if before:
        write_csv(path, before)
    rows = [Confidence(f"{number}", 0.1, 0.0, "") for number in range(10_000)]  # more than a buffer
    with pytest.raises(KeyboardInterrupt):
        write_csv(path, [*rows, Confidence("last", Interrupting(1.0), 0.0, "")])
    assert [row["image"] for file in tmp_path.iterdir() for row in read(file)] == [row.image for row in before]


def test_only_such_a_table_is_written_over(tmp_path):
    path = tmp_path / "x.csv"
    clear({path: HEADER})
    write_csv(path, [])
    clear({path: HEADER})
    assert not path.exists()
    path.write_text("image,confidence\n")
    with pytest.raises(UsageError, match=r"--out: .*x\.csv is there and not of a prediction"):
        clear({path: HEADER})
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="not of a prediction"):
        clear({path: HEADER})
