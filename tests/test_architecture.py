"""Dependencies point one way: recipes -> engine -> pipelines -> kernels; and a wheel holds every room."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "pipelines", "engine", "recipes")


def imported(path: Path) -> set[str]:
    """Absolute names of the modules of this project that a file imports."""
    package = ["semiseg", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("semiseg.")}


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_point_one_way(room):
    allowed = ROOMS[: ROOMS.index(room) + 1]
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        wrong = [name for name in imported(path) if name.split(".")[1] not in allowed]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_kernels_need_torch_and_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('triton', 'torchvision', 'cv2', 'PIL', 'tyro', 'rich', 'nvidia'): sys.modules[name] = None\n"
        "import torch, semiseg.kernels as k\n"
        "x = torch.randn(1, 3, 4, 4); y = torch.zeros(1, 16, 16, dtype=torch.uint8)\n"
        "print(float(k.upsample_cross_entropy(x, y)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_a_wheel_holds_every_room(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("semiseg-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert f"semiseg/{path.relative_to(ROOT)}" in names
