"""The data of a run: what is found and held out, what is said of it, and what of it is kept."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine.api import evaluate, train
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.data import locate, prepare_data
from semiseg.engine.protocol import Evaluation
from semiseg.engine.recipe import Files
from semiseg.engine.training.build import open_loader
from semiseg.pipelines.datasets import inspection
from semiseg.pipelines.datasets.pack import packed_bytes
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import Augmentation


def test_the_root_of_a_data_set_is_needed_but_for_the_embedded_one():
    with pytest.raises(UsageError, match=r"^--data: the recipe cac_voc needs the root of the data set"):
        locate(load_recipe("cac_voc"))
    assert locate(load_recipe("cac_shapes")).train


@pytest.mark.parametrize(("masked", "val", "few"), [(20, 0, True), (100, 0, False), (20, 2, False)])
def test_few_images_for_validation_that_nobody_chose_are_told(tiny, folder_root, masked, val, few):
    root, told = folder_root(masked=masked, bare=0, val=val, height=16, width=16), []
    prepare_data(tiny("supervised", layout="folder", data=root, split="all"), lambda event: told.append(event.text))
    assert ("warning: data: scores are of 2 images alone" in " ".join(told)) is few


def test_labelled_copies_of_validation_images_are_told_and_remembered_as_taught(tiny, folder_root):
    root, told = folder_root(masked=8), []  # a006 and a007 are for validation
    shutil.copy(root / "images/a006.jpg", root / "images/again.jpg")
    shutil.copy(root / "masks/a006.png", root / "masks/again.png")
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=1)
    first = train(recipe, on_event=lambda event: told.append(event.text)).out
    assert (
        "warning: split: 1 labelled images are, byte for byte, validation images, again is a006: scores count what is "
        "taught; keep each in one of the two"
    ) in told
    told.clear()
    prepare_data(recipe.replace(init=first), lambda event: told.append(event.text))
    assert "warning: --init: 1 of 2 images, a006 for one, were labelled in the training" in told

    (root / "some.txt").write_text("a000\na001")
    told.clear()
    prepare_data(recipe.replace(split=str(root / "some.txt")), lambda event: told.append(event.text))
    (said,) = [text for text in told if "byte for byte" in text]
    assert said == (
        "warning: split: 1 unlabelled images are, byte for byte, validation images, again is a006: methods that learn "
        "from unlabelled images see them, without masks"
    )


def test_a_folder_of_unlabelled_images_is_trained_on_and_needed_by_no_evaluation(tiny, folder_root, tmp_path):
    root, told = folder_root(bare=0), []  # a006 and a007 are for validation
    for name in ("a000.jpg", "a007.jpg"):
        (tmp_path / "pool").mkdir(exist_ok=True)
        shutil.copy(root / "images" / name, tmp_path / "pool" / name)
    recipe = tiny(
        "fixmatch", layout="folder", data=root, split="all", files=Files(unlabeled=tmp_path / "pool"), steps=1
    )
    with pytest.raises(UsageError, match=r"no unlabelled images, .* --files\.unlabeled FOLDER"):
        train(recipe.replace(files=Files()))
    run = train(recipe, on_event=lambda event: told.append(event.text)).out
    assert len(json.loads((run / "split.json").read_text())["unlabeled"]) == 2
    (said,) = [text for text in told if "byte for byte" in text]
    assert said.startswith("warning: split: 1 unlabelled images are, byte for byte, validation images")
    shutil.rmtree(tmp_path / "pool")
    assert evaluate(run, device="cpu")["images"] == 2
    shutil.copytree(root, tmp_path / "moved")
    assert evaluate(run, tmp_path / "moved", device="cpu")["images"] == 2


@pytest.mark.parametrize(
    ("crop", "scale", "said"),
    [(96, "own", [64]), (64, "own", []), (96, "long_side", [])],
)
def test_a_crop_that_most_labelled_images_are_smaller_than_is_told(folder_root, crop, scale, said):
    recipe = load_recipe("supervised_folder").replace(data=folder_root(height=60, width=70), crop=crop, split="all")
    notes = []
    prepare_data(recipe.replace(labeled=Augmentation(scale=scale)), notes.append)
    warning = "warning: --crop: most labelled images are smaller than windows of 96, which are padded; use --crop "
    assert [note.text for note in notes if "--crop" in note.text] == [f"{warning}{fits}" for fits in said]


@pytest.mark.parametrize(("longest", "said"), [(1.0, True), (2.0, False), (None, False)])
def test_images_that_are_seen_much_smaller_than_they_are_are_told(folder_root, longest, said):
    recipe = load_recipe("supervised_folder").replace(data=folder_root(height=60, width=140), crop=64, split="all")
    notes = []
    prepare_data(recipe.replace(labeled=Augmentation(scale="own", longest=longest)), notes.append)
    told = "a long side of 140 pixels and are seen with one of 64, 2 times smaller; cut images and masks into tiles, or"
    assert any(told in note.text for note in notes) is said


@pytest.mark.parametrize(
    ("method", "longest", "told"), [("fixmatch", 1.0, True), ("fixmatch", 20.0, False), ("supervised", 1.0, False)]
)
def test_images_that_are_seen_much_smaller_than_the_labelled_ones_are_told(folder_root, method, longest, told):
    root, notes = folder_root(height=60, width=140), []
    Image.new("RGB", (640, 64)).save(root / "images/a011.png")
    (root / "images/a011.jpg").unlink()
    recipe = load_recipe(f"{method}_folder").replace(data=root, crop=64, split="all")
    recipe = recipe.replace(unlabeled=Augmentation(scale="own", longest=longest))
    prepare_data(recipe.replace(labeled=Augmentation(scale="own", longest=1.0)), notes.append)
    said = [note.text for note in notes if "what they show looks otherwise" in note.text]
    assert len(said) == told
    if told:
        told = "1 of 12 images are seen much smaller than they are, a011 10 times, where it is 2 of most labelled ones"
        assert said[0].startswith(f"warning: --crop: {told}")


@pytest.mark.parametrize(("evaluation", "told"), [({"longest": 1.0}, True), ({"scale": 1.0}, False)])
def test_validation_images_are_seen_as_they_are_judged(folder_root, evaluation, told):
    root, notes = folder_root(height=60, width=70), []
    Image.new("RGB", (640, 64)).save(root / "images/a007.png")  # for validation
    Image.new("L", (640, 64)).save(root / "masks/a007.png")
    (root / "images/a007.jpg").unlink()
    recipe = load_recipe("supervised_folder").replace(data=root, crop=64, split="all")
    prepare_data(recipe.replace(evaluation=Evaluation(**evaluation)), notes.append)
    assert any("a007 10 times, where it is 1 of most labelled ones" in note.text for note in notes) is told


def test_labelled_masks_of_nothing_and_ignored_pixels_are_refused(folder_root):
    """Those of a split alone: other masks of the pool show more."""
    root = folder_root(masked=8, bare=0, val=2)
    for name in ("a000", "a001"):
        mask = np.zeros((48, 64), np.uint8)
        mask[5:20, 5:20] = 255
        size = Image.open(root / f"images/{name}.jpg").size
        Image.fromarray(mask).resize(size, Image.Resampling.NEAREST).save(root / f"masks/{name}.png")
    (root / "two.txt").write_text("a000\na001\n")
    recipe = load_recipe("supervised_folder").replace(data=root)
    with pytest.raises(UsageError, match=r"--split: the labelled masks hold nothing but 0 and 255, .*a000\.png"):
        prepare_data(recipe.replace(split=str(root / "two.txt")))
    assert prepare_data(recipe.replace(split="all")).labeled


def test_the_masks_of_unlabelled_images_are_not_trained_on(voc_root):
    """Every image of the pool has a mask; those of the unlabelled ones may go after the data was prepared."""
    root = voc_root(train=6)
    recipe = load_recipe("fixmatch_voc").replace(data=root, split="draw:2@0", backend="resident", crop=32, batch=2)
    data = prepare_data(recipe)
    labeled, unlabeled = data.trained_on[:2], data.trained_on[2:]
    assert [record.id for record in data.trained_on] == [*data.split.labeled, *data.split.unlabeled]
    assert all(record.mask and record.mask_mark for record in labeled)
    assert all(record.mask is None and record.mask_mark is None for record in unlabeled)
    assert len(unlabeled) == 4
    for id in data.split.unlabeled:
        (root / f"SegmentationClass/{id}.png").unlink()
    batches = iter(open_loader(recipe, data, torch.device("cpu")))
    assert next(batches).labeled.target.shape == (2, 32, 32)
    pixels = sum(record.height * record.width for record in data.trained_on)
    masks = sum(record.height * record.width for record in labeled)
    assert packed_bytes(data.trained_on) == 3 * pixels + masks


@pytest.mark.parametrize(("threads", "pools"), [(1, [1]), (3, [3]), (0, [5])])
def test_data_is_prepared_by_as_many_threads_as_are_asked_for(voc_root, monkeypatch, threads, pools):
    started = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers):
            started.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(inspection, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(inspection, "cores", lambda: 5)
    prepare_data(load_recipe("supervised_voc").replace(data=voc_root(), split="all", threads=threads))
    assert set(started) == set(pools)


def test_the_shares_of_classes_are_those_of_the_labelled_masks_alone(voc_root):
    """By which labelled pixels are weighed: the masks of unlabelled images may be there, and are not looked at."""
    root = voc_root(train=4)
    for number, value in ((1, 1), (2, 2), (3, 3), (4, 3)):
        path = root / f"SegmentationClass/2007_{number:06d}.png"
        mask = np.full((40, 56), value, np.uint8)
        mask[: 10 * number] = 0
        Image.fromarray(mask).save(path)
    labelled = root / "labelled.txt"
    labelled.write_text("2007_000001\n2007_000002\n")
    data = prepare_data(load_recipe("fixmatch_voc").replace(data=root, split=str(labelled)))
    shares = {name: pct for name, pct in data.class_pct().items() if pct}
    assert shares == pytest.approx({"background": 37.5, "aeroplane": 37.5, "bicycle": 25.0})
