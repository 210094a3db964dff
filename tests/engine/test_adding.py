"""The programs of docs/adding.md: a method, an encoder and a layout added from outside go through every command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.engine import methods
from semiseg.engine.catalogue import load_recipe
from semiseg.pipelines.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"

MINE = """
from dataclasses import dataclass, replace
from semiseg.engine import load_recipe, methods
from semiseg.engine.methods.supervised import Supervised, SupervisedConfig

@dataclass(kw_only=True, slots=True)
class MineConfig(SupervisedConfig):
    pass

class Mine(Supervised):
    name, config_class = "mine", MineConfig

methods.METHODS["mine"] = Mine

def recipe():
    return replace(load_recipe("supervised_folder"), method=MineConfig(), steps={steps})
"""

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


SCRIPT = """
from added import PseudoConfig
from dataclasses import replace
from semiseg.engine.catalogue import load_recipe

def recipe():
    return replace(load_recipe("supervised_shapes"), name="pseudo_shapes", method=PseudoConfig())
"""


def test_a_recipe_is_a_script_wherever_it_lies(tmp_path, monkeypatch):
    """And finds the method that lies beside it; the processes of a comparison do, too."""
    method, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/added.py").write_text(method)
    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS})
    itself = load_recipe(str(tmp_path / "mine/added.py"), lr=0.1)
    assert (itself.name, itself.layout, itself.method.weight, itself.lr) == ("pseudo_folder", "folder", 0.5, 0.1)
    (tmp_path / "mine/pseudo.py").write_text(SCRIPT)
    few = ["--steps", "2", "--batch", "2", "--head-width", "8", "--weights", "none", "--device", "cpu", "--json"]
    command = ["compare", "supervised_shapes", "mine/pseudo.py", "--seeds", "1", "--shares", "1/16", "--out", "c", *few]
    done = subprocess.run(
        [sys.executable, "-m", "semiseg.recipes.command", *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [row["method"] for row in json.loads(done.stdout)["table"]] == ["supervised_shapes", "mine/pseudo.py"]
    (kept,) = (tmp_path / "c").glob("*/method.py")
    assert kept.read_text() == method


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.py", None, "there is no such recipe script"),
        ("empty.py", "", "has no function `recipe`"),
        ("three.py", "def recipe(): return 3", "has no function `recipe`"),
    ],
)
def test_a_script_that_is_no_recipe_is_one_line(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"{name}: {said}"):
        load_recipe(str(tmp_path / name))


def test_a_script_that_has_changed_is_read_again(tmp_path):
    """As in a notebook."""
    script = tmp_path / "mine.py"
    text = "from dataclasses import replace\nfrom semiseg.engine import load_recipe\n\n"
    text += "def recipe():\n    return replace(load_recipe('fixmatch_folder'), steps={steps})\n"
    for steps in (3, 77):
        script.write_text(text.format(steps=steps))
        os.utime(script, ns=(steps, steps))
        assert load_recipe(str(script)).steps == steps


def test_a_recipe_of_a_script_as_it_was_before_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS})
    script = tmp_path / "mine.py"
    found = []
    for steps in (3, 4):
        script.write_text(MINE.format(steps=steps))
        os.utime(script, ns=(steps, steps))
        found.append(load_recipe(str(script)))
    before, after = found
    assert after.method_class.name == "mine"
    with pytest.raises(
        UsageError, match="settings MineConfig: load the recipe anew, whose script was read again since"
    ):
        before.check()


def test_modules_of_one_name_beside_two_scripts_are_not_exchanged(tmp_path):
    for name, steps in (("a", 3), ("b", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "steps_of_mine.py").write_text(f"STEPS = {steps}")
        (tmp_path / name / f"{name}_recipe.py").write_text(
            "from steps_of_mine import STEPS\nfrom semiseg.engine.catalogue import load_recipe\n"
            "def recipe(): return load_recipe('supervised_shapes', steps=STEPS)\n"
        )
    assert load_recipe(str(tmp_path / "a/a_recipe.py")).steps == 3
    with pytest.raises(UsageError, match=r"b_recipe\.py: steps_of_mine is imported from .*/a/steps_of_mine\.py"):
        load_recipe(str(tmp_path / "b/b_recipe.py"))


def test_an_extension_that_cannot_be_loaded_is_named(tmp_path):
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[semiseg.extensions]\nmine = nowhere_to_be_found\n")
    done = subprocess.run(
        [sys.executable, "-m", "semiseg.recipes.command", "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    said = "semiseg: the extension mine (nowhere_to_be_found) cannot be loaded (No module named 'nowhere_to_be_found')"
    assert (done.returncode, done.stderr) == (2, f"{said}; mend it, or uninstall its package\n")


def test_a_package_adds_by_its_entry_point_to_every_command(tmp_path):
    method, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "added.py").write_text(
        f"{method}\nfrom semiseg.pipelines.datasets.layouts import LAYOUTS\nLAYOUTS['mine'] = LAYOUTS['folder']\n"
    )
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[semiseg.extensions]\nmine = added\n")
    done = subprocess.run(
        [sys.executable, "-m", "semiseg.recipes.command", "doctor", "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(r"--layout \{[^}]*mine\}", done.stdout), done.stdout + done.stderr


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
