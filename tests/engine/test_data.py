"""Where a recipe's data is, from any working folder and after it was moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.data import anchored, portable, prepare_data
from semiseg.engine.recipe import Files, Recipe
from semiseg.pipelines.views import Augmentation


def test_every_place_of_files_is_anchored_to_the_root_and_portable(folder_root):
    root = folder_root()
    (root / "images").rename(root / "photos")
    (root / "masks").rename(root / "labels")
    (root / "train.txt").write_text("a000\na001\n")
    files = Files(
        images="photos",
        masks="labels",
        classes=Path("classes.txt"),
        train_list=Path("train.txt"),
        val_list=Path("val.txt"),
        orientation="ignore",
        max_megapixels=2,
    )
    recipe = anchored(load_recipe("supervised_folder").replace(data=root, files=files, split="all"))
    assert (recipe.files.images, recipe.files.masks) == (str(root / "photos"), str(root / "labels"))
    assert (recipe.files.classes, recipe.files.val_list) == (root / "classes.txt", root / "val.txt")
    assert portable(recipe).files == files
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert len(prepare_data(recipe).labeled) == 2


@pytest.mark.parametrize(("crop", "scale", "said"), [(96, "own", [64]), (64, "own", []), (96, "long_side", [])])
def test_a_crop_that_most_labelled_images_are_smaller_than_is_told(folder_root, crop, scale, said):
    recipe = load_recipe("supervised_folder").replace(data=folder_root(height=60, width=70), crop=crop, split="all")
    notes = []
    prepare_data(recipe.replace(labeled=Augmentation(scale=scale)), notes.append)
    warning = "warning: --crop: most labelled images are smaller than windows of 96, which are padded; use --crop "
    assert [note.text for note in notes if "--crop" in note.text] == [f"{warning}{fits}" for fits in said]
