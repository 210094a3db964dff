"""The example of the README runs where there are torch and numpy, what these need, and nothing else."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"


@pytest.fixture
def bare(tmp_path):
    """A folder of links to the installed torch, numpy and their requirements without Triton, and to the kernels."""
    queue, seen = ["torch", "numpy"], {"triton"}
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        queue += [re.match(r"[\w.-]+", line)[0] for line in found.requires or () if "extra ==" not in line]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            link = tmp_path / top
            if not link.exists():
                link.symlink_to(found.locate_file(top))
    (tmp_path / "semiseg").mkdir()
    (tmp_path / "semiseg" / "kernels").symlink_to(KERNELS)
    return tmp_path


def test_the_example_needs_torch_and_numpy_only(bare):
    (example,) = re.findall(r"```python\n(.*?)```", (KERNELS / "README.md").read_text(), re.S)
    assert len(example.splitlines()) <= 12
    code = f"{example}\nimport sys\nprint(float(loss1) > 0, bool(logits.grad.any()), 'triton' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(bare)}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False"]
