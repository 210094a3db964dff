"""The programs of docs/adding.md: a method, an encoder and a layout added from outside go through every command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"

RUN = """
import json, sys
from pathlib import Path
from semiseg.engine.commands.main import main
from semiseg.engine.recipe import Recipe

root, out = Path(sys.argv[1]), Path(sys.argv[2])

def recipe():
    return Recipe(
        name="pseudo_beside", layout="beside", method=PseudoConfig(), backbone="two", head_width=16, weights="none",
        split="draw:1/2@0", crop=24, batch=2, steps=2,
    )

def run(*arguments, build=None):
    sys.argv = ["semiseg", *map(str, arguments), "--json"]
    main(build)

run("--dry-run", "--method.weight", 0.25, build=recipe)
here = ["--device", "cpu", "--backend", "host", "--threads", 1]
run("--data", root, "--out", out, *here, "--log-every", 1, build=recipe)
run("evaluate", out, "--device", "cpu")
run("predict", out, root / "a000.jpg", "--device", "cpu")
run("doctor", "--layout", "beside", "--data", root)
"""


@pytest.fixture
def beside_root(folder_root):
    """The folder data set with every mask beside its image."""
    root = folder_root(masked=8, bare=4)
    beside = root.parent / "beside"
    beside.mkdir()
    for image in (root / "images").iterdir():
        shutil.copy(image, beside)
    for mask in (root / "masks").iterdir():
        shutil.copy(mask, beside / f"{mask.stem}_mask.png")
    return beside


def test_what_the_page_adds_goes_through_every_command(beside_root, tmp_path):
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(programs) == 3
    imported = "from semiseg.engine import load_recipe; load_recipe('fixmatch_folder')"  # as a notebook has it by then
    code = "\n".join([imported, *programs, RUN])
    done = subprocess.run(
        [sys.executable, "-c", code, beside_root, tmp_path / "run"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    dry, trained, scores, predicted, doctor = map(json.loads, done.stdout.splitlines())
    assert dry["effective"]["loss_weights"] == {"supervised": 1.0, "pseudo": 0.25}
    assert dry["effective"]["batch"] == {"labeled": 2, "unlabeled": 2}
    assert (trained["steps"], trained["labeled"], trained["unlabeled"]) == (2, 3, 7)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert "loss/pseudo" in lines[0]
    assert scores["miou"] == pytest.approx(trained["best"], abs=1e-6)
    assert list(scores["iou"]) == ["ground", "car", "tree"]
    assert predicted["images"] == 1
    assert doctor["ok"]
    saved = json.loads((tmp_path / "run/recipe.json").read_text())
    assert (saved["method"]["type"], saved["backbone"], saved["layout"]) == ("pseudo", "two", "beside")


@pytest.mark.parametrize("flag", ["--layout", "--backbone"])
def test_flags_offer_what_is_registered(flag):
    code = (
        "from semiseg.pipelines.datasets.layouts import LAYOUTS\n"
        "from semiseg.engine.models import ENCODERS\n"
        "LAYOUTS['mine'] = LAYOUTS['folder']; ENCODERS['mine'] = ENCODERS['resnet18']\n"
        "import sys; sys.argv = ['semiseg', 'train', 'cac_voc', '--help']\n"
        "from semiseg.engine.commands.main import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert re.search(rf"{flag} \{{[^}}]*mine\}}", done.stdout), done.stdout
