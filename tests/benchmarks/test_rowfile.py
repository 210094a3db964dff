"""Rows that are added to a CSV file stand below the columns of their names, or the file is left as it was."""

from __future__ import annotations

import pytest

import rowfile
from semiseg.pipelines.errors import UsageError


def test_rows_go_below_the_columns_of_their_names(tmp_path):
    path = tmp_path / "some.csv"
    rowfile.append([{"a": 1, "b": 2}], path)
    rowfile.append([{"b": 4, "a": 3}], path)
    assert path.read_text().split() == ["a,b", "1,2", "3,4"]
    with pytest.raises(UsageError, match=r"other columns \(c\)"):
        rowfile.append([{"a": 1, "b": 2, "c": 3}], path)
    assert path.read_text().split() == ["a,b", "1,2", "3,4"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n3", "\n", "\n1,2\n", "a,b"])
def test_files_that_a_row_would_damage_are_left_alone(tmp_path, text):
    path = tmp_path / "some.csv"
    path.write_text(text)
    for add in (rowfile.appendable, lambda path: rowfile.append([{"a": 5, "b": 6}], path)):
        with pytest.raises(UsageError, match=r"--results: .*some\.csv has no header, or ends within a row"):
            add(path)
    assert path.read_text() == text


def test_files_that_cannot_be_are_told_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file/some.csv"):
        with pytest.raises(UsageError, match=r"--results: .* cannot be added to"):
            rowfile.appendable(path)
    rowfile.appendable(tmp_path / "new/some.csv")
    assert not (tmp_path / "new/some.csv").exists()
