"""What `pip install` makes of the project: its files, its requirements, its command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from semiseg.recipes.command import main
from source_tree import ROOMS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what a wheel installs, made of copies: beside the sources, what an earlier build has left in build/
    would come with it."""
    home = tmp_path_factory.mktemp("packaging")
    for room in ROOMS:
        shutil.copytree(ROOT / room, home / "source" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home / "source")
    flags = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", home]
    command = [sys.executable, "-m", "pip", "wheel", *flags, home / "source"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = home.glob("semiseg-*.whl")
    zipfile.ZipFile(wheel).extractall(home / "installed")
    return home / "installed"


@pytest.fixture
def package(installed) -> Distribution:
    (folder,) = installed.glob("semiseg-*.dist-info")
    return PathDistribution(folder)


def test_a_wheel_holds_the_modules_of_every_room_and_nothing_else(installed):
    wanted = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    wanted |= {Path(room) / "py.typed" for room in ROOMS}
    held = {path.relative_to(installed / "semiseg") for path in installed.rglob("semiseg/**/*") if path.is_file()}
    assert held == wanted
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"semiseg"}


def test_without_extras_torch_and_numpy_are_required_and_nothing_else(package):
    named = {line: re.match(r"[\w.-]+", line)[0] for line in package.requires}
    assert sorted(name for line, name in named.items() if "extra ==" not in line) == ["numpy", "torch"]
    assert set(package.metadata.get_all("Provides-Extra")) == {"train", "timm", "onnx", "dev"}


def test_the_command_starts_in_the_recipes(package):
    (command,) = package.entry_points
    assert (command.group, command.name) == ("console_scripts", "semiseg")
    assert command.load() is main


def test_what_is_installed_alone_names_what_the_command_needs(installed):
    """-S: without the packages of this environment."""
    start = "import sys; sys.path.append(sys.argv.pop()); from semiseg.recipes.command import main; main()"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start, installed], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("semiseg: semiseg.engine needs torchvision, cv2, PIL, tyro, rich, safetensors, ")
