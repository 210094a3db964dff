"""Where files are, whatever folder a program works in and wherever data is moved."""

from __future__ import annotations

from pathlib import Path

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.data import prepare_data
from semiseg.engine.places import portable, with_absolute_paths
from semiseg.engine.recipe import Files, Recipe


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
    recipe = with_absolute_paths(load_recipe("supervised_folder").replace(data=root, files=files, split="all"))
    assert (recipe.files.images, recipe.files.masks) == (str(root / "photos"), str(root / "labels"))
    assert (recipe.files.classes, recipe.files.val_list) == (root / "classes.txt", root / "val.txt")
    assert portable(recipe).files == files
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert len(prepare_data(recipe).labeled) == 2
