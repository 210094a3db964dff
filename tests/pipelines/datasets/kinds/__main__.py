"""Every kind through the command line: `python -m kinds OUT.csv [PATTERN]`, a row for each that OUT.csv has not yet.

Cells are exit codes, with seconds and the largest resident memory behind; a cell with an exclamation mark is no defined
result: another code than 0, 2 and 3, a traceback, a signal, more than a minute or 4 GB, two lines in the place of one.
Pictures and masks that can be used are trained on together, which the cell says; each by itself where that fails.
"""

from __future__ import annotations

import csv
import filecmp
import importlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from semiseg.engine.commands.main import main

from . import KINDS, make
from .judge import Outcome, apart
from .kind import Kind, sound

# What a run imports, here once and not in each fork.
for module in ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg", "nvidia.dali.fn",
               "tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer"):  # fmt: skip
    importlib.import_module(module)

QUICK = [
    *("--backbone", "resnet18", "--head-width", "16", "--weights", "none", "--crop", "32", "--batch", "2"),
    *("--steps", "2", "--eval-every", "2", "--threads", "1", "--device", "cpu"),
]
COLUMNS = ("doctor", "prepare", "train host", "train dali", "predict")
TRAINED = COLUMNS[2:4]
TOGETHER = 32
"""Kinds in one run."""


def run(arguments: list[str], log: Path, cache: Path) -> Outcome:
    """A command in a fork of this process; its value is the exit code."""

    def command() -> int:
        os.environ["SEMISEG_CACHE"] = str(cache)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["semiseg", *arguments]
        try:
            main()
        except SystemExit as end:
            return end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return 0

    return apart(command, gigabytes=8)


def cell(outcome: Outcome, log: Path) -> str:
    """What stands in the table."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("semiseg: ")]
    defined = (
        not outcome.end
        and outcome.value in (0, 2, 3)
        and "Traceback" not in text
        and outcome.megabytes < 4096
        and (outcome.value != 2 or len(lines) <= 1)
    )
    end = outcome.value if not outcome.end else outcome.end.strip().splitlines()[-1]
    said = "" if defined else f" {' '.join(text.split())[-300:]}"
    return f"{'' if defined else '! '}{end} {outcome.seconds:.1f}s {outcome.megabytes}MB{said}"


def commands(kind: Kind, root: Path, out: Path, run_folder: Path) -> dict[str, list[str]]:
    """By column."""
    files = [word for name, value in kind.options.items() for word in (f"--files.{name.replace('_', '-')}", str(value))]
    data = ["--data", str(root), *files]
    train = ["train", "supervised_folder", *data, *QUICK]
    pictures = root / str(kind.options.get("images", "images"))
    return {
        "doctor": ["doctor", "--layout", "folder", *data],
        "prepare": ["prepare", "--layout", "folder", *data],
        "train host": [*train, "--backend", "host", "--out", str(out / "host")],
        "train dali": [*train, "--backend", "dali", "--out", str(out / "dali")],
        "predict": ["predict", str(run_folder), str(pictures), "--out", str(out / "seen"), "--device", "cpu"],
    }


def p0_alone(base: Path, root: Path) -> list[Path] | None:
    """The files of p0, where nothing else differs from the sound data set."""
    paths = [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    if not all(path.is_file() and not path.is_symlink() for path in paths):
        return None
    own = [path for path in paths if path.stem == "p0"]
    others = {path.relative_to(root) for path in paths if path.stem != "p0"}
    alike = others == {path.relative_to(base) for path in base.rglob("*") if path.is_file() and path.stem != "p0"}
    alike = alike and all(filecmp.cmp(base / path, root / path, shallow=False) for path in others)
    changed = [path for path in own if not (base / path.relative_to(root)).is_file() or not filecmp.cmp(
        base / path.relative_to(root), path, shallow=False)]  # fmt: skip
    return own if alike and len(own) == 2 and changed else None


def together(kinds: list[str], home: Path) -> dict[str, dict[str, str]]:
    """Cells of the training of kinds that are trained on in one run; none where it does not end well."""
    base, root = sound(home / "base" / "own"), sound(home / "all" / "own")
    within = []
    for kind in kinds:
        files = p0_alone(base, make(home / kind, kind)) if not KINDS[kind].options else None
        for path in files or ():
            shutil.copy(path, root / path.parent.name / f"{kind}{path.suffix}")
        within += [kind] if files else []
        shutil.rmtree(home / kind, ignore_errors=True)
    cells: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for column in TRAINED if within else ():
        words = commands(KINDS["png-rgb"], root, home / "all", home)[column]
        words += ["--batch", "8", "--steps", str(len(within) // 8 + 2)]
        outcome, log = run(words, home / "log", home / "cache"), home / "log"
        if outcome.value == 0 and (told := cell(outcome, log))[0] != "!":
            for kind in within:
                cells[kind][column] = f"{told} with {len(within) - 1} others"
    return cells


def table(path: Path, pattern: str) -> None:
    done = {row[0] for row in csv.reader(path.open())} if path.exists() else set()
    left = [kind for kind in KINDS if kind not in done and re.search(pattern, kind)]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        root = sound(home / "sound" / "own")
        made = run(commands(KINDS["png-rgb"], root, home, home)["train host"], home / "log", home / "cache")
        assert made.value == 0, (home / "log").read_text()
        with path.open("a", newline="") as file:
            rows = csv.writer(file)
            if not done:
                rows.writerow(["kind", *COLUMNS])
            while left:
                some, left = left[:TOGETHER], left[TOGETHER:]
                known = together([kind for kind in some if KINDS[kind].refused is None], home / f"{len(left)}")
                for kind in some:
                    folder = home / kind
                    of, log = commands(KINDS[kind], make(folder, kind), folder, home / "host"), folder / "log"
                    cells = {
                        column: known.get(kind, {}).get(column) or cell(run(of[column], log, folder / "cache"), log)
                        for column in COLUMNS
                    }
                    rows.writerow([kind, *(cells[column] for column in COLUMNS)])
                    file.flush()
                    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    table(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
