"""`semiseg predict`: what it reads, and what it does with pictures that it cannot."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import api
from semiseg.engine.evaluation import inference, memory


def test_predict_on_an_empty_folder(refused, semiseg, voc_root, tmp_path, train):
    assert semiseg(*train(voc_root(), "--out", tmp_path / "run"))[0] == 0
    (tmp_path / "empty").mkdir()
    assert "no images" in refused("predict", tmp_path / "run", tmp_path / "empty", "--device", "cpu")


def test_a_file_that_is_no_picture_is_refused(refused, semiseg, voc_root, tmp_path, train):
    assert semiseg(*train(voc_root(), "--out", tmp_path / "run"))[0] == 0
    (tmp_path / "classes.txt").write_text("ground\ncar\n")
    said = refused("predict", tmp_path / "run", tmp_path / "classes.txt", "--out", tmp_path / "seen", "--device", "cpu")
    assert "classes.txt cannot be decoded (not an image of" in said
    assert not (tmp_path / "seen").exists()


def test_a_bad_file_stops_no_other(semiseg, voc_root, tmp_path, train):
    root = voc_root()
    assert semiseg(*train(root, "--out", tmp_path / "run"))[0] == 0
    images = root / "JPEGImages"
    (images / "2007_000002.jpg").write_bytes(b"no picture")
    (images / "._2007_000003.jpg").write_bytes(b"a file manager's")
    for _ in range(2):
        command = ["predict", tmp_path / "run", images, "--out", images / "../JPEGImages/out", "--device", "cpu"]
        code, text, err = semiseg(*command, "--json")
        assert code == 3
        assert "2007_000002.jpg cannot be decoded" in err
        done = json.loads(text)
        assert (done["images"], done["failed"]) == (8, [str(images / "2007_000002.jpg")])
        assert len(list((images / "out/masks").iterdir())) == 8


def test_prediction_turns_no_picture_where_training_could_not_whatever_it_was_told(
    semiseg, folder_root, tmp_path, train
):
    root, out = folder_root(), tmp_path / "run"
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture in (root / "images").iterdir():  # masks fit these as they are stored
        Image.open(picture).save(picture, exif=exif)
    flags = ("--files.orientation", "upright", "--out", out)
    code, _, err = semiseg(*train(root, *flags, recipe="supervised_folder", split="all"))
    assert code == 0, err
    semiseg("predict", out, root / "images/a000.jpg", "--out", tmp_path / "seen", "--device", "cpu")
    assert Image.open(tmp_path / "seen/masks/a000.png").size == Image.open(root / "masks/a000.png").size == (48, 40)


@pytest.mark.parametrize("told", [True, False])
def test_how_pictures_are_read_goes_with_the_checkpoint(semiseg, folder_root, tmp_path, train, told):
    """Whether it was said or seen by the masks."""
    root, out = folder_root(), tmp_path / "run"
    new, exif = tmp_path / "new", Image.Exif()
    exif[0x0112] = 6
    new.mkdir()
    Image.fromarray(np.zeros((48, 40, 3), np.uint8)).save(new / "phone.jpg", exif=exif)
    shutil.copy(new / "phone.jpg", root / "images")
    if not told:
        Image.open(root / "images/a000.jpg").save(root / "images/a000.jpg", exif=exif)  # its mask fits as it is stored
    options = ["--files.orientation", "ignore"] if told else []
    code, text, err = semiseg(*train(root, "--out", out, *options, recipe="supervised_folder", split="all"))
    assert code == 0, err
    assert ("all are used as they are stored" if told else "because masks fit them so") in text + err
    assert json.loads((out / "recipe.json").read_text())["files"]["orientation"] == ("ignore" if told else None)

    def predicted(*more):
        semiseg("predict", out, new, "--out", tmp_path / "seen", "--device", "cpu", *more)
        return Image.open(tmp_path / "seen/masks/phone.png").size

    assert predicted() == (40, 48)
    assert predicted("--files.orientation", "upright") == (48, 40)
    code, _, err = semiseg("predict", out, new, "--device", "cpu", "--files.max-megapixels", "0.001")
    assert code == 3
    assert "phone.jpg is 40x48, 0.00192 megapixels where 0.001 are the limit" in err


@pytest.mark.parametrize("size", [None, (10**14,), (10**10, 10**10)])
def test_pictures_too_large_for_the_memory_are_listed_and_the_rest_is_done(
    semiseg, folder_root, tmp_path, monkeypatch, size, train
):
    """Whether it is known before, or torch says so."""
    root, out, new = folder_root(), tmp_path / "run", tmp_path / "new"
    semiseg(*train(root, "--out", out, "--evaluation.scale", "1", recipe="supervised_folder", split="all"))
    new.mkdir()
    Image.new("RGB", (320, 320)).save(new / "large.png")
    Image.new("RGB", (32, 32)).save(new / "small.png")

    def segment(network, image, *rest, **more):
        if len(image) > 32 and size:
            torch.empty(size)
        return whole(network, image, *rest, **more)

    whole = inference.segment
    monkeypatch.setattr(inference, "segment", segment)
    monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: 5_000_000)
    protocol = ["--protocol", "slide"] if size else []
    code, text, err = semiseg("predict", out, new, "--device", "cpu", "--json", *protocol)
    assert code == 3
    assert json.loads(text)["failed"] == [str(new / "large.png")]
    assert (out / "predictions/masks/small.png").is_file()
    (line,) = [line for line in err.splitlines() if "GiB" in line]
    assert "large.png: is 320x320, for which " in line
    assert line.endswith("cut it into tiles")
    assert ("pass --protocol slide --window" in line) == (size is None)
    if size is None:
        code, _, err = semiseg("predict", out, new, "--device", "cpu", "--protocol", "slide", "--window", "32")
        assert code == 0, err


def test_a_window_beyond_the_memory_is_named(semiseg, folder_root, tmp_path, train):
    root, out = folder_root(), tmp_path / "run"
    semiseg(*train(root, "--out", out, recipe="supervised_folder", split="all"))
    slide = ("--protocol", "slide", "--window", "1000000", "--device", "cpu")
    code, _, err = semiseg("predict", out, root / "images/a000.jpg", *slide)
    (line,) = [line for line in err.splitlines() if "GiB" in line]
    assert code == 3
    assert "a000.jpg: is 48x40, for which slide 1000000" in line
    assert line.endswith("pass a smaller --window, or cut it into tiles")


def test_what_is_worth_labelling_next_has_no_mask(semiseg, folder_root, tmp_path, train):
    """Known by its bytes, wherever it lies and whatever it is called."""
    root, out = folder_root(masked=9, bare=4, val=2), tmp_path / "run"
    (root / "images/b").mkdir()
    (root / "images/a012.jpg").rename(root / "images/b/a000.jpg")  # called like a labelled one
    assert semiseg(*train(root, "--out", out, recipe="supervised_folder", split="draw:3@0"))[0] == 0
    labeled = set(json.loads((out / "split.json").read_text())["labeled"])
    uses = dict.fromkeys((f"a{n:03d}" for n in range(7)), "unused") | dict.fromkeys(labeled, "labels")
    uses |= {"a007": "validation", "a008": "validation"}
    shutil.copytree(root / "images", tmp_path / "copied")
    for images in (root / "images", tmp_path / "copied"):
        code, text, _ = semiseg("predict", out, images, "--out", tmp_path / "seen", "--device", "cpu")
        assert code == 0
        with (tmp_path / "seen/confidence.csv").open(newline="") as file:
            rows = [*csv.DictReader(file)]
        assert len(rows) == 13
        assert {row["image"].removesuffix(".jpg"): row["mask"] for row in rows if row["mask"]} == uses
        named = text.split("worth labelling next: ")[1].split(";")[0].split(", ")
        assert len(named) == 3
        assert set(named) <= {"a009.jpg", "a010.jpg", "a011.jpg", "b/a000.jpg"}


def test_a_command_says_which_pictures_are_written(semiseg, refused, folder_root, tmp_path, train):
    root, out = folder_root(), tmp_path / "run"
    semiseg(*train(root, "--out", out, recipe="supervised_folder", split="all"))
    seen, command = tmp_path / "seen", ("predict", out, root / "images", "--out", tmp_path / "seen", "--device", "cpu")
    count = len([*(root / "images").iterdir()])
    for names, said in (
        ((), f"{seen}\n"),
        (("overlays", "masks"), f"{seen}/masks, {seen}/overlays\n"),
    ):
        code, text, _ = semiseg(*command, "--write", *names)
        assert code == 0
        assert f"{count} images: {said}" in text
        assert {path.parent.name for path in seen.rglob("*.png")} == {*names}
        assert (seen / "review.html").exists()
    assert "--write" in refused(*command, "--write", "mask")


def test_ctrl_c_says_what_becomes_of_it(semiseg, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "predict", interrupted)
    said = "semiseg: interrupted; what was written stays, and the same command makes all of it\n"
    assert semiseg("predict", "run", "images") == (130, "", said)
