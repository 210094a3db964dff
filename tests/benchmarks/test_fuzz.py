"""Whatever a file or flag holds, it is taken or refused. SEMISEG_FUZZ=10000 tries so many inputs of each kind."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from readers import READERS

INPUTS = int(os.environ.get("SEMISEG_FUZZ", "200"))
PROGRAM = Path(__file__).parents[2] / "benchmarks/fuzz.py"


@pytest.mark.parametrize("name", READERS)
def test_what_a_file_holds_is_taken_or_refused(tmp_path, name):
    settings(max_examples=INPUTS)(READERS[name](tmp_path))()


def test_a_fuzzer_tries_the_same_or_says_what_it_needs(tmp_path):
    command = [sys.executable, PROGRAM, "class_lists", "--runs", "50", "--results", tmp_path / "fuzz.csv"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if find_spec("atheris") is None:
        assert done.returncode == 1
        assert done.stderr == "fuzz.py: atheris, which leads the fuzzing, is missing; run `pip install atheris`\n"
        return
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "fuzz.csv").open(newline=""))
    assert (row["input"], row["tried"], row["found"]) == ("class_lists", "50", "0")
    assert int(row["read"]) > 0
