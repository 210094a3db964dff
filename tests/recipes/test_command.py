"""The command starts, or says in one line which packages are missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from semiseg.recipes.command import main

START = """
import sys
sys.modules |= dict.fromkeys(sys.argv.pop().split(","))  # what is None there is found by nobody
from semiseg.recipes.command import main
main()
"""


def started_without(*modules: str) -> subprocess.CompletedProcess:
    """`semiseg --help` where the modules are missing."""
    command = [sys.executable, "-c", START, "--help", ",".join(modules)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("modules", [("tyro",), ("torchvision", "cv2", "tyro")])
def test_packages_that_are_missing_are_named_in_one_line(modules):
    done = started_without(*modules)
    said = f"semiseg: semiseg.engine needs {', '.join(modules)}: run `pip install -e '.[train]'` in its clone\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("module", ["semiseg.engine.commands", "semiseg.engine.commands.main", "importlib.util"])
def test_an_import_that_fails_for_another_reason_keeps_its_traceback(module):
    done = started_without(module)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert module in done.stderr.splitlines()[-1]


def test_ctrl_c_while_packages_are_imported_is_one_line(monkeypatch, capsys):
    class Slow:
        def find_spec(self, *arguments):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "semiseg.engine.commands.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, *capsys.readouterr()) == (130, "", "semiseg: interrupted\n")


def test_with_all_packages_it_is_the_command_of_the_engine(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["semiseg", "--help"])
    main()
    assert capsys.readouterr().out.startswith("usage: semiseg COMMAND")
