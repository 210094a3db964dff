"""Scores on data as it is said or as in the training; prediction over folders as people have them: which pictures it
finds, and where it writes."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import evaluate, predict, train
from semiseg.engine.checkpoint import header_of, load_network, save_network
from semiseg.engine.data import anchored, locate
from semiseg.engine.evaluation.protocols import upsampled
from semiseg.engine.models import build_network
from semiseg.engine.recipe import Files
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "car"), ((0, 0, 0), (255, 0, 0))


@pytest.fixture
def checkpoint(tiny, tmp_path):
    recipe = tiny("supervised", data=tmp_path)
    network = build_network("cac", "resnet18", 2, head_width=16)
    path = tmp_path / "best.safetensors"
    save_network(path, network.state_dict(), header_of(recipe, network, CLASSES, PALETTE), recipe)
    return path


@pytest.fixture
def run(checkpoint, tmp_path):
    """`run(out)` predicts tmp_path/new: the names below masks/, the number of images and what was said."""

    def run(out="out", images="new"):
        notes = []
        done = predict(checkpoint, tmp_path / images, tmp_path / out, device="cpu", on_event=notes.append)
        assert not done.failed
        made = {
            kind: sorted(str(path.relative_to(done.out / kind)) for path in (done.out / kind).rglob("*.png"))
            for kind in ("masks", "colours", "overlays")
        }
        assert made["masks"] == made["colours"] == made["overlays"]
        said = "\n".join(event.text for event in notes if event.kind == "note")
        return made["masks"], done.images, said

    return run


@pytest.fixture
def new(tmp_path):
    """`new("a.jpg", ...)` makes pictures below tmp_path/new, and returns the folder."""

    def make(*names):
        for name in names:
            path = tmp_path / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(path, "PNG")
        return tmp_path / "new"

    return make


@pytest.fixture
def judged(tiny, tmp_path, own_cache):
    """`judged(**files)` is a checkpoint that was trained on tmp_path/a, found with these options, and calls all
    ground, which is all that masks of a show; b has the same names, and its masks show cars alone."""

    def make(bias=(1e6, 0.0), **files):
        for value, name in enumerate("ab"):
            for id in ("x", "y", "z"):
                for folder, picture in (
                    ("images", np.full((32, 40, 3), 40 * value, np.uint8)),
                    ("labels", np.full((32, 40), value, np.uint8)),
                ):
                    path = tmp_path / name / folder / f"{id}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(path)
            (tmp_path / name / "classes.txt").write_text("ground\ncar\n")
            (tmp_path / name / "train.txt").write_text("x\n")
            (tmp_path / name / "one.txt").write_text("z\n")
            (tmp_path / name / "val.txt").write_text("y\nz\n")
        recipe = tiny("supervised", layout="folder", data=tmp_path / "a", files=Files(masks="labels", **files))
        network = build_network("cac", "resnet18", 2, head_width=16)
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(torch.tensor(bias))
        path = tmp_path / "best.safetensors"
        save_network(path, network.state_dict(), header_of(anchored(recipe), network, CLASSES, PALETTE), recipe)
        return path

    return make


def test_other_data_is_judged_by_its_own_masks(judged, tmp_path):
    checkpoint = judged()
    assert evaluate(checkpoint, device="cpu")["pixel_accuracy"] == 1
    assert evaluate(checkpoint, tmp_path / "b", device="cpu")["pixel_accuracy"] == 0
    (tmp_path / "a").rename(tmp_path / "moved")
    assert evaluate(checkpoint, tmp_path / "moved", device="cpu")["pixel_accuracy"] == 1


def test_what_a_run_held_out_is_judged_also_when_masks_have_come_since(tiny, folder_root):
    """A tenth of 29 masks is two images, of 30 three: the third was a labelled one."""
    root, said = folder_root(masked=29, bare=1, val=0, height=32), []
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=1)
    held_out = {sample.id for sample in locate(recipe).val}
    run = train(recipe).out
    before = evaluate(run, device="cpu", on_event=said.append)
    assert before["images"] == len(held_out) == 2
    assert [event.text for event in said if event.kind == "note"] == [
        f"data: no val.txt in {root}: 2 of 29 images with masks are held out for validation"
    ]
    shutil.copy(root / "masks/a000.png", root / "masks/a029.png")
    assert len(locate(recipe).val) == 3
    said.clear()
    assert evaluate(run, device="cpu", on_event=said.append) == before
    assert any("2 images are judged, those that the run held out" in event.text for event in said)
    (root.parent / "link").symlink_to(root)
    for spelled in (root, root / "images/..", root.parent / "link"):
        assert evaluate(run, spelled, device="cpu") == before

    (root / "val.txt").write_text("\n".join([*sorted(held_out), "a000"]))
    said.clear()
    assert evaluate(run, device="cpu", on_event=said.append)["images"] == 3
    assert any("warning: 1 of 3 images, a000 for one, were labelled in the training" in event.text for event in said)
    (root / "val.txt").unlink()
    for id in held_out:
        (root / f"masks/{id}.png").unlink()
    with pytest.raises(UsageError, match="none of the 2 images that the run held out is there"):
        evaluate(run, device="cpu")


def test_an_option_leaves_those_of_the_training_as_they_are(judged):
    checkpoint = judged(val_list="one.txt")
    assert evaluate(checkpoint, device="cpu")["images"] == 1
    assert evaluate(checkpoint, device="cpu", files={"orientation": "ignore", "masks": None})["images"] == 1
    assert evaluate(checkpoint, device="cpu", files={"val_list": "val.txt"})["images"] == 2


def test_a_list_beside_the_training_s_data_is_not_taken_for_other_data(judged, tmp_path):
    (tmp_path / "mine.txt").write_text("z\n")
    checkpoint = judged(val_list=tmp_path / "mine.txt")
    assert evaluate(checkpoint, device="cpu")["images"] == 1
    with pytest.raises(UsageError, match=r"--files\.val-list: was .*mine\.txt, outside of .*; say what it is for .*b"):
        evaluate(checkpoint, tmp_path / "b", device="cpu")
    assert evaluate(checkpoint, tmp_path / "b", device="cpu", files={"val_list": "one.txt"})["images"] == 1


def test_pictures_are_found_as_in_training(new, run, tmp_path):
    folder = new("a.jfif", "day/b.jpg", "._a.jpg", "@eaDir/a.jpg/x.jpg", ".ipynb_checkpoints/a.jpg")
    new("runs/x/samples/s.png")
    for name in ("recipe.json", "split.json"):
        (folder / "runs/x" / name).touch()
    (folder / "c.heic").touch()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "z.jpg").mkdir()
    (folder / "lost.png").symlink_to("nowhere.png")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "a.jfif", tmp_path / "elsewhere/d.jpg")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    names, count, said = run()
    assert names == ["a.png", "day/b.png", "linked/d.png"]
    assert count == 3
    assert "(1 .heic)" in said
    assert "3 names in" in said
    assert "runs/x/" in said


@pytest.mark.parametrize("masks", ["{}_mask.png", "{}-seg.png", "masks/{}.png", "labels/{}.gif"])
def test_masks_among_the_pictures_are_passed_over(new, run, masks):
    new("a.jpg", "b.jpg", "street_label.jpg", masks.format("a"))
    names, _, said = run()
    assert names == ["a.png", "b.png", "street_label.png"]
    assert f"are masks or drawings of some, and passed over: {masks.format('a')}, …" in said


def test_a_circle_of_links_is_one_line(new, run):
    (new("a.jpg") / "loop").symlink_to(".")
    with pytest.raises(UsageError, match=r"the link .*new/loop leads back"):
        run()


@pytest.mark.parametrize("out", ["new/out", "new", "new/../new/out", "link/out"])
def test_predicting_twice_is_predicting_the_same(new, run, tmp_path, out):
    new("a.jpg", "day/b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for _ in range(2):
        assert run(out)[:2] == (["a.png", "day/b.png"], 2)


def test_masks_of_an_earlier_prediction_are_told_and_none_stands_for_a_picture_that_failed(new, run, tmp_path):
    new("a.png", "day/b.png")
    assert run()[2] == ""
    new("a.jpg")
    (tmp_path / "new/day/b.png").unlink()
    made, _, said = run()
    assert made == ["a.jpg.png", "a.png", "a.png.png", "day/b.png"]
    assert f"2 masks of an earlier one stay, {tmp_path / 'out/masks/a.png'} for one" in said
    (tmp_path / "new/a.jpg").write_bytes(b"")
    with pytest.raises(AssertionError):  # it says that one failed
        run()
    assert not [*(tmp_path / "out").rglob("a.jpg.png")]


def test_nothing_but_predictions_is_written_over(new, run, tmp_path):
    new("a.jpg", "masks/a.png", "masks/b.png")
    (tmp_path / "others").mkdir()
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(tmp_path / "others/c.jpg")
    before = (tmp_path / "new/masks/a.png").read_bytes()
    for pictures in ("new", "others"):  # of the same names as the masks that are there, and of others
        with pytest.raises(UsageError, match=r"--out: .*new/masks holds what no prediction wrote"):
            run("new", pictures)
        assert (tmp_path / "new/masks/a.png").read_bytes() == before
        assert not (tmp_path / "new/colours").exists()


def test_a_folder_of_results_may_be_there_and_empty(new, run, tmp_path):
    new("a.jpg")
    (tmp_path / "out/masks").mkdir(parents=True)
    assert run()[0] == ["a.png"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_the_folder_of_results_are_replaced(new, run, tmp_path, link):
    new("a.jpg")
    run()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out/masks/a.png").unlink()
    link(tmp_path / "precious", tmp_path / "out/masks/a.png")
    assert run()[0] == ["a.png"]
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out/masks/a.png").is_symlink()


@pytest.mark.parametrize("place", ["masks", "masks/day"])
def test_linked_folders_of_results_are_refused(new, run, tmp_path, place):
    new("day/a.jpg")
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    if place == "masks":
        (tmp_path / "out/masks").rmdir()
    (tmp_path / "out" / place).symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=f"--out: .*out/{place} is a link to another folder"):
        run()
    assert not list((tmp_path / "precious").iterdir())


def test_names_as_long_as_file_systems_take(new, run):
    long, longer = "x" * 240, "é" * 125
    new(f"{long}.jpg", f"{longer}.jpg", f"{longer}.png")
    names, count, _ = run()
    assert count == len(names) == 3
    assert f"{long}.png" in names
    assert all(len(os.fsencode(name)) <= 255 for name in names)


@pytest.mark.parametrize("name", ["..jpg", ".hidden.jpg", "a.b.jpg", "a..png"])
def test_odd_names_of_one_image(new, run, name):
    new(name)
    assert run(images=f"new/{name}")[0] == [f"{name.rpartition('.')[0]}.png"]


def test_names_that_are_not_utf8_are_refused(new, run, tmp_path):
    os.rename(new("a.jpg") / "a.jpg", os.fsencode(tmp_path / "new") + b"/caf\xe9.jpg")
    with pytest.raises(UsageError, match=r"caf\\xe9.jpg"):
        run()


def listed(out):
    with (out / "confidence.csv").open(newline="", encoding="utf-8") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


@pytest.mark.parametrize("protocol", ["whole", "slide", "cps-slide", "unimatch-slide"])
def test_how_sure_a_network_is_that_says_the_same_of_each_pixel(judged, new, tmp_path, protocol):
    checkpoint = judged(bias=(0.0, np.log(3.0)))
    new("b.jpg", "day/a, ü.jpg", "a.jpg")
    new("c.jpg").joinpath("c.jpg").write_bytes(b"no picture")
    scales = (1.0,) if protocol == "whole" else (1.0, 1.5)
    settings = {"protocol": protocol, "window": 32, "scales": scales, "device": "cpu", "precision": "fp32"}
    for _ in range(2):  # the second time over the first one's
        done = predict(checkpoint, tmp_path / "new", tmp_path / "out", **settings)
        rows = [(name, "0.750000", "100.0000", "car", "") for name in ("a.jpg", "b.jpg", "day/a, ü.jpg")]
        assert listed(tmp_path / "out") == rows
    assert [(one.image, one.confidence, one.unsure_class) for one in done.confidences] == [
        (name, 0.75, "car") for name, *_ in rows
    ]
    assert [*done.failed] == [tmp_path / "new/c.jpg"]


def test_the_least_sure_picture_comes_first(checkpoint, tmp_path):
    (tmp_path / "new").mkdir()
    means, loaded = {}, load_network(checkpoint)
    loaded.network.eval()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (32, 40, 3), np.uint8) // (number + 1)
        Image.fromarray(noise).save(tmp_path / f"new/{number}.png")
        image = ((noise / 255 - loaded.network.mean) / loaded.network.std).transpose(2, 0, 1)
        with torch.no_grad():
            logits = upsampled(loaded.network(torch.from_numpy(image[None]).float()), (32, 40))[0].double().numpy()
        odds = np.exp(logits)
        means[f"{number}.png"] = (odds.max(0) / odds.sum(0)).mean()
    done = predict(checkpoint, tmp_path / "new", tmp_path / "out", device="cpu", precision="fp32", scale=1)
    assert [one.image for one in done.confidences] == sorted(means, key=means.get)
    assert [float(row[1]) for row in listed(done.out)] == pytest.approx(sorted(means.values()), abs=1e-5)
    assert len({*means.values()}) == 6


def test_one_picture_is_listed_by_its_name(checkpoint, new, tmp_path):
    predict(checkpoint, new("day/a.jpg") / "day/a.jpg", tmp_path / "out", device="cpu")
    assert [name for name, *_ in listed(tmp_path / "out")] == ["a.jpg"]


def test_what_somebody_else_wrote_of_confidences_stays(checkpoint, new, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/confidence.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"--out: .*confidence\.csv is there and not of a prediction"):
        predict(checkpoint, new("a.jpg"), tmp_path / "out", device="cpu")
    assert [*(tmp_path / "out").iterdir()] == [tmp_path / "out/confidence.csv"]


def test_a_prediction_that_is_interrupted_leaves_no_table(checkpoint, new, tmp_path):
    def interrupt(event):
        if event.done == 2:
            raise KeyboardInterrupt

    folder = new("a.jpg", "b.jpg", "c.jpg")
    assert predict(checkpoint, folder, tmp_path / "out", device="cpu").table.exists()
    with pytest.raises(KeyboardInterrupt):
        predict(checkpoint, folder, tmp_path / "out", device="cpu", on_event=interrupt)
    assert not [*(tmp_path / "out").glob("confidence*")]


def test_folders_without_pictures_say_why(new, run, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.heic").touch()
    with pytest.raises(UsageError, match=r"new: no images there .*\(1 .heic\): save them"):
        run()
    with pytest.raises(UsageError, match="none does not exist"):
        run(images="none")


def test_pictures_that_the_training_had_as_labels_are_told_on_other_data(tiny, voc_root, tmp_path):
    out = train(tiny("supervised", data=voc_root(), steps=1)).out
    labeled = json.loads((out / "split.json").read_text())["labeled"]
    other = voc_root(level="other/VOC2012")
    lists = other / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("2007_000009\n")
    (lists / "val.txt").write_text("".join(f"2007_{number:06d}\n" for number in range(1, 9)))
    told = []
    evaluate(out, other, device="cpu", on_event=lambda event: told.append(event.text))
    assert f"data: warning: {len(labeled)} of 8 images, {labeled[0]} for one, were labelled in the training" in told


def test_what_is_not_there_is_not_there(tiny, voc_root, tmp_path):
    out = train(tiny("supervised", data=voc_root(), steps=1)).out
    with pytest.raises(UsageError, match=r"no.jpg does not exist: pass a folder of images or one image"):
        predict(out, tmp_path / "no.jpg", device="cpu")


def test_the_classes_lie_beside_their_colours(tiny, voc_root, tmp_path):
    root = voc_root()
    done = predict(
        train(tiny("supervised", data=root, steps=1)).out, root / "JPEGImages", tmp_path / "seen", device="cpu"
    )
    first, second = (done.out / "colours/classes.txt").read_text().splitlines()[:2]
    assert (first, second) == ("background\t#000000", "aeroplane\t#800000")


def test_a_folder_of_the_training_that_other_data_has_not_is_told_as_such(tiny, voc_root):
    root = voc_root()
    (root / "SegmentationClass").rename(root / "labels")
    out = train(tiny("supervised", data=root, steps=1, files=Files(masks="labels"))).out
    other = voc_root(level="other/VOC2012")
    with pytest.raises(UsageError, match=r"labels.* \(the training had --files.masks labels; say what it is here\)"):
        evaluate(out, other, device="cpu")
    (root / "labels").rename(root / "gone")
    with pytest.raises(UsageError) as error:
        evaluate(out, device="cpu")
    assert "the training had" not in str(error.value)
