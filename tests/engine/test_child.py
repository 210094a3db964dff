"""Programs that end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semiseg.engine.child import MODULE
from semiseg.engine.comparison.workers import PROGRAM

PARENT = """
import subprocess, sys
from semiseg.engine.child import PYTHON
subprocess.run([*PYTHON, *sys.argv[1:]])
"""
CHILD = """
import os, signal, sys, time
from pathlib import Path
def stop(number, frame):
    Path(sys.argv[1]).write_text("stopped")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""


def wait_for(condition) -> bool:
    until = time.monotonic() + 20
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return met


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_is_asked_to_stop_when_its_parent_is_gone(tmp_path, number):
    said = tmp_path / "said"
    with subprocess.Popen([sys.executable, "-c", PARENT, "-c", CHILD, said]) as parent:
        assert wait_for(lambda: said.exists() and said.read_text())
        child = Path(f"/proc/{said.read_text()}")
        os.kill(parent.pid, number)
    assert wait_for(lambda: not child.exists())
    assert said.read_text() == "stopped"


def test_a_module_does_not_take_what_lies_in_the_working_folder_for_another(tmp_path):
    (tmp_path / "random.py").write_text("raise RuntimeError('of the user')")
    for program in ((*MODULE, "random"), PROGRAM):
        done = subprocess.run([*program, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), program
