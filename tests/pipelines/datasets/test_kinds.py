"""Every kind of file ends in its defined result: used with the right pixels and classes, or refused in one line; in
time, in little memory, without a traceback."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kinds import KINDS, make
from kinds.judge import apart, judged
from kinds.kind import labels, picture


def test_data_sets_are_read_without_torch():
    """Which takes seconds to load, and makes a process slow to fork."""
    program = "import sys, kinds.judge; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=True)


def test_every_kind_ends_in_its_defined_result():
    assert len(KINDS) > 600  # as docs/data.md says
    # In a process without torch, which is forked once for each kind.
    command = [sys.executable, "-m", "kinds.faults"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, errors="replace")
    assert done.stdout, done.stderr[-2000:]
    assert json.loads(done.stdout) == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("png-rgb", {"mask": labels(1)}),
        ("png-rgb", {"mask": None}),
        ("png-rgb", {"picture": picture() + 1}),
        ("png-rgb", {"picture": picture()[1:]}),
        ("png-rgb", {"train": ("p0", "p1")}),
        ("png-rgb", {"val": ()}),
        ("png-rgb", {"id": "p9"}),
        ("png-rgb", {"noted": "turned upright"}),
        ("png-rgb", {"refused": "decoded"}),
        ("png-rgb", {"classes": ("ground", "tree", "car")}),
        ("jpeg", {"within": 0}),
        ("png-without-end", {"refused": "megapixels"}),
        ("png-without-end", {"refused": None}),
    ],
)
def test_another_result_is_told(name, changes, tmp_path):
    root = make(tmp_path, name)
    assert judged(KINDS[name], root, tmp_path / "cache") == []
    assert judged(replace(KINDS[name], **changes), root, tmp_path / "cache") != []


@pytest.mark.parametrize(
    ("function", "end"),
    [
        (lambda: time.sleep(60), "still runs"),
        (lambda: os.kill(os.getpid(), 9), "died of signal 9"),
        (lambda: bytes(2**31), "MemoryError"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: sys.exit(2), "SystemExit"),
    ],
)
def test_how_a_process_ends_is_told(function, end):
    outcome = apart(function, seconds=0.5 if end == "still runs" else 30, gigabytes=1)
    assert outcome.value is None
    assert end in outcome.end
