"""What a person sees."""

from __future__ import annotations

import sys

import pytest

from semiseg.engine import console


def test_a_table_wider_than_the_terminal_is_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console.use(stderr=False)
    cells = ["a" * 100, "b" * 200]
    console.table("a title", ["first", "[second]"], [cells])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a title"
    assert lines[1].split() == ["first", "[second]"]
    assert lines[2].split() == cells


def test_numbers_are_aligned_to_the_right_and_words_to_the_left(capsys):
    console.use(stderr=False)
    console.table("", ["a", "count", "said"], [["1", "nan", "1, a.weight"], ["100", "-70.5 ± 3", "2"]])
    lines = capsys.readouterr().out.splitlines()
    told = ["a        count  said", "1          nan  1, a.weight", "100  -70.5 ± 3  2"]
    assert [line.rstrip() for line in lines] == told
    console.table("", ["a", "b"], [])
    assert capsys.readouterr().out.split() == ["a", "b"]


def test_paths_with_colons_are_no_emoji(capsys):
    console.use(stderr=False)
    console.say("runs/a:car:b")
    assert capsys.readouterr().out == "runs/a:car:b\n"


@pytest.mark.parametrize("stderr", [False, True])
def test_what_is_said_where_the_output_was_closed_from_the_start_is_lost(monkeypatch, stderr):
    monkeypatch.setattr(sys, "stderr" if stderr else "stdout", None)
    console.use(stderr=stderr)
    try:
        console.say("a line")
        console.table("title", ["a"], [["b"]])
    finally:
        monkeypatch.undo()
        console.use(stderr=False)
