"""The pseudo-label X-ray: its numbers, the truth that belongs to the windows, and that training does not feel it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine.api import train
from semiseg.engine.data import prepare_data
from semiseg.engine.device import Precision
from semiseg.engine.methods import METHODS, PseudoLabels
from semiseg.engine.training.build import build_method
from semiseg.engine.training.trainer import Trainer
from semiseg.engine.training.xray import Look, OfClass, Xray
from semiseg.pipelines.views import Augmentation

FP32 = Precision("fp32", torch.device("cpu"))
TEACHING = [name for name, method in METHODS.items() if method.views.windows]
CLASSES = ("ground", "car", "tree", "sky")


@pytest.fixture
def painted(voc_root):
    """A VOC whose pixels show their class, as grey 60 times its index, in fields that no flip leaves as they are."""
    root = voc_root()
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for number, path in enumerate(sorted((root / "SegmentationClass").glob("*.png"))):
        mask = np.zeros((40, 56), np.uint8)
        mask[:25, 30:] = 1
        mask[25:, 10 + number : 40] = 2
        mask[28:, 44:] = 3
        saved = Image.fromarray(mask, "P")
        saved.putpalette(Image.open(path).getpalette())
        saved.save(path)
        image = np.repeat(60 * mask[..., None], 3, 2)
        Image.fromarray(image).save(root / "JPEGImages" / f"{path.stem}.jpg", quality=98)
    return root


def seeing(recipe, monkeypatch):
    """A method of the recipe that takes for true what the windows show."""
    method = build_method(recipe, len(CLASSES))
    grey = torch.tensor(recipe.encoder.mean)[0], torch.tensor(recipe.encoder.std)[0]

    def labels(batch):
        u = batch.unlabeled
        first = {"weak_strong": ["weak"], "mixed": ["image1", "image2"], "pair": ["image1", "image2"]}
        views = [getattr(u, name) for name in first.get(method.views.unlabeled, ["image"])]
        shown = torch.cat(views)[:, 0] * grey[1] + grey[0]
        return PseudoLabels({"window": views[0]}, (shown * 255 / 60).round().clamp(0, 3).byte())

    monkeypatch.setattr(method, "pseudo_labels", labels)
    return method


@pytest.mark.parametrize("name", TEACHING)
def test_the_truth_is_that_of_the_windows(tiny, painted, monkeypatch, name):
    """Flipped, resized, padded and of partners: labels read off the windows are right but for the fields' borders."""
    recipe = tiny(name, data=painted)
    bare = Augmentation(range=(0.6, 2.0), jitter=0.0, gray=0.0, blur=0.0)
    recipe = recipe.replace(unlabeled=bare)
    xray = Xray(recipe, prepare_data(recipe), FP32)
    method = seeing(recipe, monkeypatch)
    looks = [xray(method, step) for step in range(4)]
    assert np.mean([look.right for look in looks]) > 0.93
    assert all(look.kept is None and look.disagreement is None for look in looks)
    for look in looks:
        assert sum(of.taught for of in look.classes.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", TEACHING)
def test_a_look_leaves_everything_as_it_was(tiny, painted, name):
    recipe = tiny(name, data=painted)
    xray = Xray(recipe, prepare_data(recipe), FP32)
    method = build_method(recipe, len(CLASSES)).train()
    method.begin()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    drawn = torch.get_rng_state()
    look = xray(method, 0)
    assert sum(panel.name == "truth" for panel in look.rows[-1].panels) == 1
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(module.training for module in method.networks().values())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_numbers_by_hand(tiny, painted, monkeypatch):
    recipe = tiny("cps", data=painted).replace(unlabeled=Augmentation(range=(2.0, 2.0)))
    data = prepare_data(recipe)
    xray = Xray(recipe, data, FP32)
    method = build_method(recipe, len(CLASSES))
    label = torch.zeros(2, recipe.crop, recipe.crop, dtype=torch.uint8)
    label[0] = 1
    kept = torch.zeros_like(label, dtype=torch.bool)
    kept[0, :8], kept[1, :24] = True, True
    other = label.clone()
    other[1, :, :8] = 2
    seen = PseudoLabels({"window": torch.zeros(2, 3, recipe.crop, recipe.crop)}, label, kept, other)
    monkeypatch.setattr(method, "pseudo_labels", lambda batch: seen)
    (stream,) = xray.planner(0).unlabeled
    assert (stream.views[0].inside == recipe.crop).all(), "no padding, so that shares are of all pixels"
    look = xray(method, 0)
    assert look.kept == (8 + 24) / (2 * 32)
    assert look.disagreement == 8 / (2 * 32)
    assert {name: of.taught for name, of in look.classes.items()} == {"ground": 0.75, "car": 0.25, "tree": 0, "sky": 0}
    assert look.line()["pseudo/class_pct/ground"] == 75
    assert [of.kept for of in look.classes.values()][:2] == [24 / 32, 8 / 32]
    assert math.isnan(look.line()["pseudo/kept_pct/tree"]), "nothing is called so"
    assert str(look).startswith("50.0 % of the pixels count, ")
    assert [panel.name for panel in look.rows[-1].panels] == ["window", "pseudo-label, window", "truth"]
    assert (look.rows[-1].mask[24:] == 255).all(), "what does not count is ignored"


def test_each_class_is_right_or_wrong_by_itself(tiny, painted, monkeypatch):
    """Of labels read off the windows, but for cars and sky, which are called each other."""
    bare = Augmentation(range=(0.6, 2.0), jitter=0.0, gray=0.0, blur=0.0)
    recipe = tiny("cps", data=painted).replace(unlabeled=bare)
    xray = Xray(recipe, prepare_data(recipe), FP32)
    method = seeing(recipe, monkeypatch)
    truthful = method.pseudo_labels

    def exchanged(batch):
        seen = truthful(batch)
        return replace(seen, label=torch.tensor([0, 3, 2, 1], dtype=torch.uint8)[seen.label.long()])

    monkeypatch.setattr(method, "pseudo_labels", exchanged)
    classes = xray(method, 0).classes
    assert all(classes[name].right > 0.85 for name in ("ground", "tree"))
    assert all(classes[name].right < 0.15 for name in ("car", "sky"))
    assert all(of.kept is None for of in classes.values()), "all count"


def test_of_each_class_what_counts_and_is_known_is_right_or_not(tiny, painted, monkeypatch):
    """By hand, from the truth that the sheet shows, in which stripes are void."""
    for path in (painted / "SegmentationClass").glob("*.png"):
        mask = Image.open(path)
        values = np.array(mask)
        values[::7] = 255
        void = Image.fromarray(values, "P")
        void.putpalette((mask.getpalette() + 768 * [0])[:768])  # of a shorter one Pillow writes fewer bits
        void.save(path)
    recipe = tiny("cps", data=painted).replace(unlabeled=Augmentation(range=(2.0, 2.0)))
    xray = Xray(recipe, prepare_data(recipe), FP32)
    method = build_method(recipe, len(CLASSES))
    label = torch.arange(recipe.crop, dtype=torch.uint8).remainder(2).expand(2, recipe.crop, recipe.crop).contiguous()
    kept = torch.zeros_like(label, dtype=torch.bool)
    kept[:, :, :20], kept[:, 5:9] = True, False
    seen = PseudoLabels({"window": torch.zeros(2, 3, recipe.crop, recipe.crop)}, label, kept)
    monkeypatch.setattr(method, "pseudo_labels", lambda batch: seen)
    look = xray(method, 0)
    windows = [row.panels[-1].mask for row in look.rows if row.panels[-1].name == "truth" and len(row.panels) == 3]
    truth = np.stack(windows)
    assert truth.shape == label.shape
    assert (truth == 255).any()
    for number, name in enumerate(CLASSES[:2]):
        called = label.numpy() == number
        known = called & kept.numpy() & (truth != 255)
        assert look.classes[name].kept == (called & kept.numpy()).sum() / called.sum()
        assert look.classes[name].right == (truth[known] == number).mean()


def test_classes_that_hardly_count_are_named():
    """Where others do, and where they are said at all."""
    of = {"ground": (0.9, 0.8), "car": (0.0995, 0.01), "tree": (0.0005, 0.0), "sky": (0.0, math.nan)}
    classes = {name: OfClass(said=said, taught=0.25, kept=kept) for name, (said, kept) in of.items()}
    seen = Look(kept=0.7, right=None, disagreement=None, classes=classes, rows=())
    assert str(seen) == "70.0 % of the pixels count (less than 10 % of those called 'car')"
    assert str(replace(seen, kept=0.05)) == "5.0 % of the pixels count"
    assert str(replace(seen, kept_alone=False)) == "70.0 % of the pixels count"


def test_without_masks_nothing_is_said_of_the_truth(tiny, painted):
    recipe = tiny("cps", data=painted)
    data = prepare_data(recipe)
    xray = Xray(recipe, data, FP32)
    for record in data.unlabeled:
        record.mask.unlink()  # in mid-run
    look = xray(build_method(recipe, len(CLASSES)), 0)
    assert look.right is None
    assert not any(name.startswith("pseudo/right_pct") for name in look.line())


def look(kept=None, **classes):
    shares = {name: OfClass(said=0.0, taught=classes.get(name, 0.0), kept=0.0) for name in CLASSES}
    return Look(kept=kept, right=None, disagreement=None, classes=shares, rows=())


def test_each_fault_is_told_once_a_run_at_its_second_look(tiny, painted):
    recipe = tiny("fixmatch", data=painted)
    data = prepare_data(recipe)
    xray = Xray(recipe, data, FP32)
    sound, collapsed = look(kept=0.5, ground=0.6, car=0.4), look(kept=0.5, ground=0.995, car=0.005)
    looks = (sound, collapsed, collapsed, collapsed, sound, collapsed, collapsed)
    said = [xray.suspicion(one, step) for step, one in enumerate(looks)]
    assert [bool(line) for line in said] == [False, False, True, False, False, False, False]
    assert "99.5 % of what counts is 'ground'" in said[2]
    nothing = look(kept=0.0, **dict.fromkeys(CLASSES, math.nan))
    assert xray.suspicion(nothing, 7) is None
    gone_on = Xray(recipe, data, FP32)
    gone_on.load_state_dict(xray.state_dict())
    looks = {7: nothing, 8: nothing, 9: nothing, 10: collapsed, 11: collapsed}
    assert [bool(gone_on.suspicion(one, step)) for step, one in looks.items()] == [False, True, False, False, False]


@pytest.mark.parametrize(("name", "bar"), [("fixmatch", "threshold"), ("u2pl", "unreliable"), ("cps", None)])
@pytest.mark.parametrize("ramp", [0.0, 0.5])
def test_cures_are_settings_that_the_method_has(tiny, painted, name, bar, ramp):
    recipe = tiny(name, data=painted)
    recipe = recipe.replace(method=replace(recipe.method, ramp=ramp))
    xray = Xray(recipe, prepare_data(recipe), FP32)
    nothing, collapsed = look(kept=0.0, **dict.fromkeys(CLASSES, math.nan)), look(kept=0.5, ground=0.995, car=0.005)
    for bad, verb in ((nothing, "lower"), (collapsed, "raise")):
        said = [xray.suspicion(bad, step) for step in range(2)][1]
        assert re.findall(r"--method\.(threshold|unreliable)", said) == ([bar] if bar else [])
        assert (f"{verb} --method.{bar}" in said) == bool(bar)
        assert ("--method.ramp" in said) == (bad is collapsed and not ramp)


def test_a_class_that_fills_the_labels_is_no_collapse(tiny, painted):
    for path in (painted / "SegmentationClass").glob("*.png"):
        saved = Image.open(path)
        empty = Image.fromarray(np.zeros((40, 56), np.uint8), "P")
        empty.putpalette(saved.getpalette())
        empty.save(path)
    recipe = tiny("fixmatch", data=painted)
    xray = Xray(recipe, prepare_data(recipe), FP32)
    assert not any(xray.suspicion(look(kept=1.0, ground=1.0), step) for step in range(3))


@pytest.mark.parametrize("name", ["cac", "fixmatch", "supervised"])
def test_a_run_logs_looks_and_trains_as_without_them(tiny, painted, monkeypatch, tmp_path, name):
    told = []
    recipe = tiny(name, data=painted, steps=4, eval_every=2, log_every=1)
    result = train(recipe, on_event=lambda event: told.append(event.text))
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    looked = [line for line in lines if "pseudo/class_pct/ground" in line]
    assert [line["step"] for line in looked] == ([] if name == "supervised" else [2, 4])
    assert (result.out / "views.png").exists() == bool(looked)
    assert any("pseudo-labels: " in text for text in told) == bool(looked)
    page = (result.out / "report.html").read_text()
    assert ("What unlabelled images teach" in page) == bool(looked)
    assert ("<th class='n'>count, % of those called so" in page) == bool(looked)
    shares = json.loads((result.out / "split.json").read_text())["class_pct"]
    assert sum(shares.values()) == pytest.approx(100)

    monkeypatch.setattr(Xray, "__call__", lambda self, method, step: None)
    blind = Trainer(recipe.replace(out=tmp_path / "blind")).train()
    others = [json.loads(line) for line in (blind.out / "log.jsonl").read_text().splitlines()]
    losses, scores = ([[line.get(key) for line in ls] for ls in (lines, others)] for key in ("loss", "val/miou"))
    assert losses[0] == losses[1]
    assert scores[0] == scores[1]
