"""The library from Python: silent, told to a listener, and the same files as from the shell."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import semiseg.engine
from semiseg.engine import Stopped, api, evaluate, load_network, load_recipe, predict, train
from semiseg.engine.device import as_started
from semiseg.engine.protocol import Evaluation
from semiseg.engine.recipe import Recipe
from semiseg.engine.run import Run
from semiseg.kernels.precision import PLACES, precision_kept
from semiseg.pipelines.datasets.manifest import seen
from semiseg.pipelines.errors import UsageError

SMALL = {"backbone": "resnet18", "head_width": 16, "weights": "none", "crop": 32, "batch": 2, "steps": 2, "threads": 1}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, "GOMP_SPINCOUNT = '3000'"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
        ({"OMP_WAIT_POLICY": "passive"}, "GOMP_SPINCOUNT = '0'"),
    ],
)
def test_threads_that_wait_soon_sleep_unless_somebody_says_otherwise(said, line):
    """By libgomp's own words when torch is loaded."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = others | {"OMP_DISPLAY_ENV": "verbose"} | said
    command = [sys.executable, "-c", "import semiseg.engine, torch"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert line in shown


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
    (scored,) = [event for event in events if event.kind == "note" and event.values]
    assert (scored.done, scored.total) == (3, 3)
    assert scored.values["val/miou"] == pytest.approx(result.last)


def test_lines_for_a_tracker_have_steps_that_never_fall_and_numbers(tiny, voc_root):
    lines = []
    train(
        tiny("supervised", data=voc_root(), steps=4, eval_every=2),
        lambda e: "step" in e.values and lines.append(e.values),
    )
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == 4
    assert all(isinstance(value, int | float) for line in lines for value in line.values())
    assert [step for step, line in zip(steps, lines) if "val/miou" in line] == [2, 4]
    assert len([step for step, line in zip(steps, lines) if "loss" in line]) == 4


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
    assert semiseg.engine.__all__ == api.__all__
    assert all(getattr(semiseg.engine, name) is getattr(api, name) for name in api.__all__)
    assert semiseg.engine.UsageError is UsageError
    with pytest.raises(AttributeError, match="no attribute 'tune'"):
        semiseg.engine.tune  # noqa: B018


def test_a_type_checker_sees_what_is_exported():
    """It does not run `__getattr__`."""
    source = Path(semiseg.engine.__file__)
    imports = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ImportFrom)]
    (seen,) = ([alias.name for alias in node.names] for node in imports if node.module == "api")
    assert seen == semiseg.engine.__all__
    assert source.with_name("py.typed").exists()


@pytest.mark.parametrize("setting", ["float64", "bfloat16", "autocast", "no_grad", "inference_mode", "meta"])
def test_calls_do_not_hang_on_what_the_program_around_has_set(tiny, voc_root, around, setting):
    root = voc_root()
    plain = train(tiny("supervised", data=root, out=root / "plain"))
    with around[setting]():
        random = torch.get_rng_state()
        result = train(tiny("supervised", data=root, out=root / "within"))
        network = load_network(result.out).network
        miou = evaluate(result.out, device="cpu", precision="fp32")["miou"]
        assert torch.equal(torch.get_rng_state(), random)
    expected = load_network(plain.out).network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert miou == pytest.approx(load_network(plain.out).header.miou, abs=1e-6)


def test_a_call_that_is_refused_leaves_the_run_to_the_next_one(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, out=root / "run")

    def stop(event):
        if event.kind == "log" and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        train(recipe, stop)
    with pytest.raises(UsageError, match=r"lr was .* and is 7") as held:  # as a notebook holds what was raised
        train(recipe.replace(lr=7.0, resume=True))
    assert train(recipe.replace(resume=True)).out == root / "run"
    assert held.value.__traceback__ is not None


def test_settings_of_a_recipe_are_named_as_flags_are():
    recipe = load_recipe(
        "fixmatch_shapes", steps=7, eval_every=3, **{"method.threshold": 0.9, "sampling.shared_draws": 2}
    )
    assert (recipe.steps, recipe.runtime.eval_every, recipe.method.threshold) == (7, 3, 0.9)
    assert recipe.sampling.shared_draws == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stepz": 5}, r"stepz: no setting of fixmatch_shapes; did you mean steps\?$"),
        ({"method.treshold": 0.9}, r"method\.treshold: no setting .* did you mean method\.threshold"),
        ({"steps.more": 5}, r"steps\.more: no setting"),
        ({"batch": "8"}, "batch"),
        ({"steps": "5"}, "steps"),
    ],
)
def test_wrong_settings_of_a_recipe_are_named(settings, says):
    with pytest.raises(UsageError, match=says):
        load_recipe("fixmatch_shapes", **settings)


def test_what_a_call_sets_for_the_process_is_put_back(monkeypatch):
    cv2.setNumThreads(3)
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("medium")
    try:
        with as_started():
            cv2.setNumThreads(1)
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
        now = cv2.getNumThreads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
    assert now == (3, "medium", False)


def test_a_run_weighs_labelled_pixels_by_the_shares_of_its_own_labels(tiny, voc_root):
    recipe, told = tiny("supervised", data=voc_root(), steps=2), []
    recipe = recipe.replace(method=replace(recipe.method, class_weights="auto"))
    result = train(recipe, lambda event: told.append(event.text))
    pct = Run(result.out).split["class_pct"]
    weights = {name: max(share / 100, 1e-4) ** -0.5 for name, share in pct.items() if share}
    mean = sum(weight * pct[name] / 100 for name, weight in weights.items())
    shown = ", ".join(f"{name} {weight / mean:.2g}" for name, weight in weights.items())
    assert f"weights of labelled pixels: {shown}" in told


@pytest.mark.parametrize(
    "say",
    [
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ],
)
def test_float32_is_float32_however_a_program_says_that_less_will_do(tiny, voc_root, say):
    recipe = tiny("supervised", data=voc_root(), steps=2)
    plain = train(recipe)
    with precision_kept():
        say()
        said = [place.fp32_precision for place in PLACES]
        other = train(recipe.replace(out=plain.out.with_name("other")))
        assert [place.fp32_precision for place in PLACES] == said
    one, two = (load_network(result.out).network.state_dict() for result in (plain, other))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_another_thread_is_refused_while_one_is_at_work(tiny, voc_root):
    """It would put back the generator that dropout draws from. The thread itself may, as a listener does."""
    root, refused, scores = voc_root(), [], []
    first = train(tiny("supervised", data=root, out=root / "first")).out

    def beside():
        for use in (lambda: evaluate(first, device="cpu"), lambda: load_network(first)):
            try:
                use()
            except UsageError as error:
                refused.append(str(error))

    def listen(event):
        if event.kind == "log" and event.done == 1:
            thread = threading.Thread(target=beside)
            thread.start()
            thread.join()
            scores.append(evaluate(first, device="cpu"))

    train(tiny("supervised", data=root, out=root / "second"), on_event=listen)
    assert len(refused) == 2
    assert all("at work in another thread" in line for line in refused)
    thread = threading.Thread(target=lambda: scores.append(evaluate(first, device="cpu")))
    thread.start()
    thread.join()
    assert scores[0] == scores[1]


def test_a_run_ends_where_a_picture_of_its_report_cannot_be_made(tiny, voc_root, monkeypatch):
    root, told = voc_root(val=3), []
    first = root / "SegmentationClass/2007_000007.png"

    def then(event):
        told.append(event.text)
        if event.kind == "log" and event.done == 3:
            monkeypatch.setattr(semiseg.engine.report, "seen", changed)

    def changed(manifest, id):
        if id == first.stem:
            raise UsageError(f"{first} changed since it was prepared")
        return seen(manifest, id)

    result = train(tiny("supervised", data=root), then)
    assert (result.out / "result.json").exists()
    assert sorted(path.name for path in (result.out / "samples").iterdir()) == ["2007_000008.png", "2007_000009.png"]
    assert f"report: without the picture of {first} changed since it was prepared" in told


def test_a_tilde_is_the_users_home(tiny, voc_root, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = train(tiny("supervised", data=voc_root(), out="~/runs/one"))
    assert result.out == tmp_path / "home/runs/one"
    assert load_network("~/runs/one").header.step == 3
