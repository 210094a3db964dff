"""Prediction over folders as people have them: which pictures it finds, what it writes, and where."""

from __future__ import annotations

import csv
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import predict, train
from semiseg.engine.checkpoint import load_network
from semiseg.kernels import upsample
from semiseg.pipelines.datasets import find_dataset, prepare, seen
from semiseg.pipelines.datasets.classes import read_classes
from semiseg.pipelines.errors import UsageError


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


def test_what_was_predicted_into_a_folder_among_the_pictures_is_none_of_them(new, run, tmp_path):
    new("a.jpg", "day/b.jpg")
    assert run("new/first")[2] == run("new/first")[2] == ""
    names, count, said = run("elsewhere")
    assert (names, count) == (["a.png", "day/b.png"], 2)
    assert "results of semiseg, which are passed over: first/colours/, first/masks/, first/overlays/" in said
    assert run("of-results", "new/first")[1] == 6  # for who asks for them


def test_masks_of_an_earlier_prediction_are_told_and_none_stands_for_a_picture_that_failed(new, run, tmp_path):
    new("a.png", "day/b.png")
    assert run()[2] == ""
    new("a.jpg")
    (tmp_path / "new/day/b.png").unlink()
    made, _, said = run()
    assert made == ["a.jpg.png", "a.png", "a.png.png", "day/b.png"]
    assert "an earlier one's pictures of other images (2) stay, a.png for one" in said
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


@pytest.mark.parametrize("write", ["masks", ["overlays", "masks"], ()])
def test_pictures_that_nobody_asks_for_are_not_written(checkpoint, new, tmp_path, write):
    """Nor left where an earlier prediction wrote them; list and page are what they are without."""
    folder, out = new("a.jpg", "day/b.jpg"), tmp_path / "new/seen"
    whole = predict(checkpoint, folder, out, device="cpu")
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
    some = predict(checkpoint, folder, out, device="cpu", write=write)
    assert some == whole
    others = {"masks", "colours", "overlays"} - ({write} if isinstance(write, str) else {*write})
    left = {path: data for path, data in before.items() if path.suffix != ".png" or path.parts[0] not in others}
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")} == left
    assert predict(checkpoint, folder, tmp_path / "elsewhere", device="cpu").images == 2  # results are no images


def test_pictures_of_an_earlier_prediction_are_told_of_whichever_kind(checkpoint, new, tmp_path):
    out, said = tmp_path / "out", []
    predict(checkpoint, new("a.jpg", "b.jpg"), out, device="cpu", write="overlays")
    predict(checkpoint, tmp_path / "new/a.jpg", out, device="cpu", on_event=lambda event: said.append(event.text))
    told = "predictions: an earlier one's pictures of other images (1) stay, b.png for one"
    assert any(text.startswith(told) for text in said)


@pytest.mark.parametrize("write", ["mask", ("masks", "mask")])
def test_pictures_that_there_are_not_are_refused_before_anything_is_done(tmp_path, write):
    with pytest.raises(UsageError, match="--write: must be of masks, colours, overlays, is 'mask'"):
        predict("no checkpoint", "no images", tmp_path / "out", write=write)
    assert not (tmp_path / "out").exists()


def listed(out):
    with (out / "confidence.csv").open(newline="", encoding="utf-8") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


@pytest.mark.parametrize("protocol", ["whole", "slide", "cps-slide", "unimatch-slide"])
def test_how_sure_a_network_is_that_says_the_same_of_each_pixel(judged, new, tmp_path, protocol):
    checkpoint = judged(bias=(0.0, np.log(3.0)))
    new("b.jpg", "day/a, ü.jpg", "a.jpg")
    new("c.jpg").joinpath("c.jpg").write_bytes(b"no picture")
    scales = (1.0,) if protocol == "whole" else (1.0, 1.5)
    settings = {"protocol": protocol, "scales": scales, "device": "cpu", "precision": "fp32"}
    settings |= {} if protocol == "whole" else {"window": 32}
    for _ in range(2):  # the second time over the first one's
        done = predict(checkpoint, tmp_path / "new", tmp_path / "out", **settings)
        rows = [(name, "0.750000", "100.0000", "car", "unknown") for name in ("a.jpg", "b.jpg", "day/a, ü.jpg")]
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
            logits = upsample(loaded.network(torch.from_numpy(image[None]).float()), (32, 40))[0].double().numpy()
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
    assert (first, second) == ("0\tbackground\t#000000", "1\taeroplane\t#800000")


def test_the_classes_beside_their_colours_are_read_as_those_of_the_network(tiny, folder_root, tmp_path):
    """Also where names end in numbers, which might be label values."""
    root = folder_root(masked=6, bare=0)
    (root / "classes.txt").write_text("0: type 1\n1: water 0\n2: way 2\n")
    run = train(tiny("supervised", layout="folder", data=root, steps=1)).out
    done = predict(run, root / "images", tmp_path / "seen", device="cpu")
    assert read_classes(done.out / "colours/classes.txt").names == ("type 1", "water 0", "way 2")


def test_masks_hold_the_label_values_of_the_data_set(tiny, folder_root, tmp_path):
    """So that one of an image without a mask may lie among the others."""
    root = folder_root(masked=6, bare=1)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.array([10, 20, 100, 200], np.uint8)[np.indices((40, 48)).sum(0) // 4 % 4]).save(path)
    (root / "classes.txt").write_text("10: ground\n20: car\n200: tree\n100: car\n")
    run = train(tiny("supervised", layout="folder", data=root, steps=1)).out
    checkpoint = load_network(run)
    assert checkpoint.header.values == (10, 20, 200)
    assert checkpoint.header.classes == ("ground", "car", "tree")
    done = predict(run, root / "images", tmp_path / "seen", device="cpu")
    listed = read_classes(done.out / "colours/classes.txt")
    assert listed.given == [10, 20, 200]
    bare = next(path for path in (root / "images").iterdir() if not (root / "masks" / f"{path.stem}.png").exists())
    mask, shown = (np.asarray(Image.open(done.out / kind / f"{bare.stem}.png")) for kind in ("masks", "colours"))
    assert {*np.unique(mask)} <= {10, 20, 200}
    assert np.array_equal(np.array(listed.palette)[mask], shown)
    (done.out / "masks" / f"{bare.stem}.png").rename(root / "masks" / f"{bare.stem}.png")
    manifest = prepare(find_dataset("folder", root))
    assert np.array_equal(np.array(checkpoint.header.values)[seen(manifest, bare.stem)[1]], mask)


@pytest.mark.parametrize("whole", [True, False])
def test_masks_hold_the_gray_levels_of_the_data_set(tiny, folder_root, tmp_path, whole):
    """As masks by 0 and 255, among which indices would be read as another kind of mask. whole: of all three classes."""
    root = folder_root(masked=6, bare=1)
    levels = np.array([0, 128, 255] if whole else [0, 255], np.uint8)
    for path in (root / "masks").iterdir():
        Image.fromarray(levels[np.indices((40, 48)).sum(0) // 4 % len(levels)]).save(path)
    (root / "classes.txt").write_text("ground #000000\ncar #808080\ntree #ffffff\n")
    run = train(tiny("supervised", layout="folder", data=root, steps=1)).out
    assert load_network(run).header.levels == (0, 128, 255)
    done = predict(run, root / "images", tmp_path / "seen", device="cpu")
    bare = next(path for path in (root / "images").iterdir() if not (root / "masks" / f"{path.stem}.png").exists())
    mask, shown = (np.asarray(Image.open(done.out / kind / f"{bare.stem}.png")) for kind in ("masks", "colours"))
    assert np.array_equal(mask, shown[..., 0])
    (done.out / "masks" / f"{bare.stem}.png").rename(root / "masks" / f"{bare.stem}.png")
    manifest = prepare(find_dataset("folder", root))
    assert not manifest.doubts
    assert np.array_equal(np.array([0, 128, 255])[seen(manifest, bare.stem)[1]], mask)
