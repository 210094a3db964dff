"""The library from Python: silent, told to a listener, and the same files as from the shell."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import semiseg.engine
from semiseg.engine import evaluate, load_network, load_recipe, predict, train
from semiseg.engine.protocol import Evaluation
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.errors import UsageError

SMALL = {"backbone": "resnet18", "head_width": 16, "weights": "none", "crop": 32, "batch": 2, "steps": 2, "threads": 1}


def test_a_run_from_python_leaves_one_report_and_prints_nothing(tiny, voc_root, capfd):
    events = []
    root = voc_root()
    result = train(tiny("cps", data=str(root), out=str(root / "run")), on_event=events.append)
    assert capfd.readouterr() == ("", "")
    page = (result.out / "report.html").read_text()
    assert page.count("<svg") == 3  # curves, pseudo-labels, speed
    assert page.count("data:image/png;base64,") == 4
    assert "aeroplane" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    kinds = [event.kind for event in events]
    assert kinds.count("ready") == 1
    assert kinds.index("ready") < kinds.index("log")
    assert [event.done for event in events if event.kind == "log"] == [1, 2, 3]
    assert [event.total for event in events if event.text == "evaluating"] == [3]


def test_a_run_is_scored_and_used_by_its_path(tiny, voc_root, capfd):
    root = voc_root()
    out = str(train(tiny("supervised", data=root)).out)
    checkpoint = load_network(out)
    assert (checkpoint.header.layout, len(checkpoint.header.classes)) == ("voc", 21)
    assert evaluate(out, device="cpu")["miou"] == pytest.approx(checkpoint.header.miou, abs=1e-6)
    with pytest.raises(UsageError, match="--scale: must be more than 0"):
        evaluate(out, device="cpu", scale=0)
    done = predict(out, str(root / "JPEGImages"), str(root / "seen"), device="cpu")
    assert (done.out, done.images) == (root / "seen", 9)
    assert np.asarray(Image.open(done.out / "masks/2007_000001.png")).shape == (40, 56)
    assert capfd.readouterr() == ("", "")


def test_a_scale_that_is_asked_for_takes_the_place_of_the_long_side(tiny, voc_root):
    out = train(tiny("supervised", data=voc_root(), evaluation=Evaluation(long_side=1.25))).out
    assert evaluate(out, device="cpu")["protocol"] == "whole, long side 40"
    assert evaluate(out, device="cpu", scale=0.5)["protocol"] == "whole, scale 0.5"


def test_samples_of_nested_folders_keep_their_names(folder_root):
    root = folder_root(masked=8, val=0)
    for folder in ("images", "masks"):
        for number, file in enumerate(sorted((root / folder).iterdir())):
            place = root / folder / ("b" if number % 2 else "a") / file.name
            place.parent.mkdir(exist_ok=True)
            file.rename(place)
    (root / "val.txt").write_text("a/a000\nb/a001\n")
    recipe = load_recipe("supervised_folder").replace(**SMALL, device="cpu", data=root)
    out = train(recipe.replace(out=root / "run")).out
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("samples/**/*.png")) == [
        "samples/a/a000.png",
        "samples/b/a001.png",
    ]
    assert "<p>b/a001<img" in (out / "report.html").read_text()


def test_what_is_exported_is_what_is_there():
    assert isinstance(load_recipe("cac_voc"), Recipe)
    assert sorted(semiseg.engine.__all__) == [
        "evaluate",
        "export",
        "load_network",
        "load_recipe",
        "predict",
        "train",
    ]
    with pytest.raises(AttributeError, match="no attribute 'tune'"):
        semiseg.engine.tune  # noqa: B018
