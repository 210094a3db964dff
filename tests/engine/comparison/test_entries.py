"""What must hold before the first run of a comparison starts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.engine.api import train
from semiseg.engine.comparison.entries import folder_of, prepare_comparison, split_of
from semiseg.engine.data import prepare_data
from semiseg.engine.recipe import Files
from semiseg.engine.run import Run
from semiseg.engine.training.resume import split_record
from semiseg.pipelines.errors import UsageError

METHODS = ["supervised_folder", "cps_folder"]


def begin(entry):
    """A run as `train` begins it."""
    Run.create(entry.folder, entry.recipe.to_dict(), split_record(prepare_data(entry.recipe))).close()


@pytest.mark.parametrize(
    ("share", "split"),
    [
        ("1/16", "draw:1/16@3"),
        ("30", "draw:30@3"),
        (".5", "draw:.5@3"),
        ("all", "all"),
        ("voc-cps-1/8", "voc-cps-1/8"),
        ("lists/labeled.txt", "lists/labeled.txt"),
    ],
)
def test_shares_and_counts_are_drawn_for_each_seed_and_other_splits_are_as_they_are(share, split):
    assert split_of(share, 3) == split


def test_every_run_has_a_folder_that_says_what_it_is(tmp_path):
    names = [
        folder_of(tmp_path, method, share, seed).relative_to(tmp_path).as_posix()
        for method, share, seed in [
            ("cac_voc", "1/16", 0),
            ("cac_voc --lr 0.02", "../lists/a.txt", 1),
            ("cac_voc", "all", 0),
        ]
    ]
    assert names == ["cac_voc-1of16-seed0", "cac_voc_lr_0.02-.._lists_a.txt-seed1", "cac_voc-all-seed0"]


def test_a_name_too_long_for_a_folder_is_shortened_and_stays_its_own(tmp_path):
    """As that of two list files far down."""
    shares = [f"/{'é' * 150}/{number}/labeled.txt,/{'é' * 150}/{number}/unlabeled.txt" for number in (1, 2)]
    folders = {folder_of(tmp_path, "cac_voc", share, seed) for share in shares for seed in (0, 1)}
    assert len(folders) == 4
    for folder in folders:
        folder.mkdir()
        folder.with_name(f"{folder.name}.log").touch()
        assert folder.name.startswith("cac_voc-é")


def test_methods_that_need_unlabelled_images_are_left_out_where_there_are_none(planned, folder_root):
    comparison = planned(METHODS, ["1/2", "all"], data=folder_root(masked=8, bare=0))
    told = []
    comparison, data = prepare_comparison(comparison, told.append)
    assert [(entry.method, entry.share) for entry in comparison.entries] == [
        ("supervised_folder", "1/2"),
        ("cps_folder", "1/2"),
        ("supervised_folder", "all"),
    ]
    assert len(data.split.labeled) == 3
    assert "labels all: nothing is unlabelled; left out: cps_folder" in [event.text for event in told]


def test_where_images_without_masks_are_left_all_labels_leave_no_method_out(planned, folder_root):
    comparison, _ = prepare_comparison(planned(METHODS, ["all"], data=folder_root(masked=8, bare=4)))
    assert comparison.methods == METHODS


@pytest.mark.parametrize(
    ("shares", "changes", "said"),
    [
        (["1/100"], {}, "cannot draw a share of 1/100, which is 0, of 6 images"),
        (["nowhere.txt"], {}, "nowhere.txt"),
        (["1/2"], {"lr": -1.0}, "supervised_folder: --lr"),
        (["1/2"], {"patience": 3}, "--patience: .* leave it out, or pass --patience None"),
        (["1/2", "1of2"], {}, "one folder"),
        (["1/2", "0.5"], {}, "1/2 and 0.5 label the same images"),
        (["1/3", "1/2", "3"], {}, "1/2 and 3 label the same images"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(planned, folder_root, shares, changes, said):
    comparison = planned(METHODS, shares, data=folder_root(), **changes)
    with pytest.raises(UsageError, match=said):
        prepare_comparison(comparison)
    assert not comparison.out.exists()


def test_recipes_of_several_data_sets_are_not_compared(planned, folder_root):
    comparison = planned(["supervised_folder", "cac_shapes"], data=folder_root())
    with pytest.raises(UsageError, match="layout is folder for supervised_folder and shapes for cac_shapes"):
        prepare_comparison(comparison)


def test_recipes_that_begin_with_different_weights_are_judged_by_images_that_a_list_names(
    planned, folder_root, tmp_path
):
    """Where none does, those that a network was taught by are not held out for it, and for the others they are."""
    root = folder_root(val=0)
    comparison = planned(METHODS, data=root)
    weights = tmp_path / "first"
    train(comparison.entries[0].recipe.replace(out=weights, steps=1, crop=32, batch=2))
    first, second = comparison.entries
    second = dataclasses.replace(second, recipe=second.recipe.replace(init=weights))
    comparison = dataclasses.replace(comparison, entries=(first, second))
    with pytest.raises(UsageError, match=r"^--init: which images are held out .* depends .* list them in val\.txt"):
        prepare_comparison(comparison)
    (root / "val.txt").write_text("a006\na000")  # a000 taught it
    told = []
    assert len(prepare_comparison(comparison, told.append)[0].entries) == 2
    warned = "warning: --init: 1 of 2 images, a000 for one, were labelled in the training"
    assert [event.text for event in told if "taught" in event.text or "were labelled" in event.text] == [warned]


def test_labelled_copies_of_validation_images_are_told_of_every_share(planned, folder_root):
    root, told = folder_root(bare=0), []
    shutil.copy(root / "images/a006.jpg", root / "images/a000.jpg")  # a006 is for validation
    prepare_comparison(planned(METHODS[:1], ["1/6", "all"], data=root), told.append)
    copies = [event.text for event in told if "byte for byte" in event.text]
    assert copies[-1].startswith("warning: labels all: ")


def test_methods_that_are_judged_differently_are_named(planned, folder_root):
    comparison = planned(METHODS, data=folder_root())
    other = comparison.entries[1]
    judged = dataclasses.replace(other.recipe.evaluation, window=64, protocol="slide")
    other = dataclasses.replace(other, recipe=other.recipe.replace(evaluation=judged))
    told = []
    comparison, _ = prepare_comparison(
        dataclasses.replace(comparison, entries=(comparison.entries[0], other)), told.append
    )
    said = "supervised_folder by whole, long side at most 960; cps_folder by slide 64, long side at most 960"
    assert comparison.judged == said
    assert f"warning: the methods are not judged alike: {said}" in [event.text for event in told]
    assert planned(METHODS).judged == "whole, long side at most 960"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 30}, "steps was 20 and is"),
        ({"eval_every": 5}, "eval_every was None and is"),
        ({"lr": 0.5}, "lr was"),
    ],
)
def test_a_folder_with_runs_of_other_settings_is_refused(planned, folder_root, changes, said):
    data = folder_root()
    begin(planned(METHODS, data=data).entries[1])
    more = planned(METHODS, ["1/2", "1/3"], 2, data=data, threads=3)  # and with other threads
    prepare_comparison(more)
    with pytest.raises(UsageError, match=said):
        prepare_comparison(planned(METHODS, data=data, **changes))


def test_what_differs_between_two_data_sets_is_named(planned, folder_root):
    root = folder_root()
    shutil.copytree(root / "masks", root / "others")
    one, other = planned(METHODS, data=root).entries
    other = dataclasses.replace(other, recipe=other.recipe.replace(files=Files(masks="others")))
    comparison = dataclasses.replace(planned(METHODS), entries=(one, other))
    masks = rf"files\.masks is None for supervised_folder and {root}/others for cps_folder"
    with pytest.raises(UsageError, match=f"^compare: {masks}; compare"):
        prepare_comparison(comparison)


def test_a_folder_with_runs_of_other_images_is_refused(planned, folder_root):
    data = folder_root()
    begin(planned(METHODS, data=data).entries[1])
    (data / "images/a011.jpg").unlink()
    with pytest.raises(UsageError, match=r"seed0: the unlabelled images are not those .*a011"):
        prepare_comparison(planned(METHODS, data=data))


def test_a_folder_with_runs_of_other_masks_is_refused(planned, folder_root):
    """Under the same names."""
    data = folder_root()
    begin(planned(METHODS, data=data).entries[1])
    prepare_comparison(planned(METHODS, data=data))
    mask = data / "masks/a006.png"
    Image.fromarray(2 - np.asarray(Image.open(mask)) % 3).save(mask)
    with pytest.raises(UsageError, match="seed0: files of the validation images or their masks hold other"):
        prepare_comparison(planned(METHODS, data=data))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "nowhere.pth"}, "cps_folder: weights nowhere.pth: no such file"),
        ({"init": Path("nowhere.safetensors")}, "cps_folder: .*nowhere.safetensors"),
    ],
)
def test_a_run_that_could_not_begin_is_told_of_before_the_first_one(planned, folder_root, changes, said):
    comparison = planned(METHODS, data=folder_root())
    first, second = comparison.entries
    second = dataclasses.replace(second, recipe=second.recipe.replace(**changes))
    with pytest.raises(UsageError, match=said):
        prepare_comparison(dataclasses.replace(comparison, entries=(first, second)))
    assert not comparison.out.exists()


def test_a_share_that_leaves_too_little_to_mix_is_told_of_before_the_first_run(planned, folder_root):
    root = folder_root(masked=7, bare=1, val=2)
    with pytest.raises(UsageError, match="cutmix_cps_folder: "):
        prepare_comparison(planned(["supervised_folder", "cutmix_cps_folder"], ["all"], data=root))


def test_a_second_comparison_in_a_folder_is_refused_while_one_is_at_work(planned):
    comparison = planned(METHODS)
    with comparison.lock(), pytest.raises(UsageError, match="another comparison is at work"), comparison.lock():
        pass
    with comparison.lock():
        pass
