"""`semiseg evaluate`: what flags change of the training's way to judge, and what they undo."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.evaluation import memory
from semiseg.engine.models import build_network
from semiseg.engine.places import with_absolute_paths
from semiseg.engine.recipe import Evaluation


@pytest.fixture
def checkpoint(tiny, folder_root, tmp_path):
    evaluation = Evaluation(flip=True, background=False, longest=3.0)
    recipe = with_absolute_paths(tiny("supervised", layout="folder", data=folder_root(), evaluation=evaluation))
    network = build_network("cac", "resnet18", 3, head_width=16)
    palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    path = tmp_path / "best.safetensors"
    save_network(path, network.state_dict(), header_of(recipe, network, ("ground", "car", "tree"), palette), recipe)
    return path


@pytest.mark.parametrize(
    ("flags", "protocol"),
    [
        ([], "whole, long side at most 96, flip, without background"),
        (["--no-flip", "--background"], "whole, long side at most 96"),
        (["--flip", "--no-background"], "whole, long side at most 96, flip, without background"),
        (["--scale", "0.5"], "whole, scale 0.5, flip, without background"),
    ],
)
def test_flags_stand_over_what_the_training_had(semiseg, checkpoint, flags, protocol):
    code, out, err = semiseg("evaluate", checkpoint, *flags, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["protocol"] == protocol


def test_scores_of_classes_are_shown_and_tables_written(semiseg, checkpoint, tmp_path):
    code, out, err = semiseg("evaluate", checkpoint, "--device", "cpu", "--out", tmp_path / "judged", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert sum(map(sum, scores["confusion"])) == 2 * 40 * 48
    table = [line.split() for line in err.splitlines()]
    assert ["class", "IoU", "%", "precision", "%", "recall", "%", "Dice", "%"] in table
    keys = ("iou", "class_precision", "recall", "dice")
    for name in scores["classes"]:
        row = [scores[key][name] for key in keys]
        assert [name, *("-" if share is None else f"{100 * share:.2f}" for share in row)] in table
    assert f"mean Dice {100 * scores['mdice']:.2f} %, pixel accuracy {100 * scores['pixel_accuracy']:.2f} %" in err
    assert err.endswith(f"tables: {tmp_path / 'judged'}\n")
    assert {path.name for path in (tmp_path / "judged").iterdir()} == {"confusion.csv", "images.csv", "scores.csv"}


def test_a_table_of_somebody_else_stays(refused, checkpoint, tmp_path):
    (tmp_path / "scores.csv").write_text("mine")
    said = refused("evaluate", checkpoint, "--device", "cpu", "--out", tmp_path)
    assert said.endswith("scores.csv is there and not of an evaluation: choose another folder")
    assert (tmp_path / "scores.csv").read_text() == "mine"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("flags", "cure"),
    [
        (["--scale", "1000000"], "a smaller --scale"),
        (["--scales", "1", "1000000"], "smaller --scales"),
        (["--protocol", "slide", "--window", "1000000"], "a smaller --window"),
    ],
)
def test_what_is_too_large_for_the_memory_is_one_line(refused, checkpoint, monkeypatch, flags, cure, known):
    """Whether it is known before, or torch says so."""
    if not known:
        monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: None)
    said = refused("evaluate", checkpoint, *flags, "--device", "cpu")
    assert ".jpg: is 48x40, for which " in said
    assert ("are free" in said) is known
    assert f"; pass {cure}, " in said
    assert said.endswith("or cut it and its mask into tiles")


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
@pytest.mark.parametrize("flag", ["--scale", "--scales"])
@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_what_is_no_number_is_refused(refused, checkpoint, folder_root, command, flag, value):
    images = [folder_root() / "images"] if command == "predict" else []
    assert refused(command, checkpoint, *images, flag, value).startswith(f"semiseg: {flag}: must be ")


@pytest.mark.parametrize(("command", "flag"), [("evaluate", "--window"), ("export", "--window"), ("export", "--size")])
def test_sides_beyond_any_memory_are_refused(refused, checkpoint, command, flag):
    sides = ["1" + 400 * "0"] * (2 if flag == "--size" else 1)
    assert f"{flag}: must be at most 1000000000, is 1000" in refused(command, checkpoint, flag, *sides)


def test_masks_without_a_pixel_that_counts_are_refused_as_by_a_training(refused, checkpoint, folder_root):
    root = folder_root(root="other")
    for id in (root / "val.txt").read_text().split():
        Image.new("L", (48, 40), 255).save(root / f"masks/{id}.png")
    said = "no pixel of the 2 validation images has a class, all are ignored (255); see `semiseg doctor`"
    assert refused("evaluate", checkpoint, "--data", root, "--device", "cpu").endswith(f"--files.val-list: {said}")
