"""Every recipe: it builds, it carries the published numbers, and it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semiseg.engine.cli import load_recipe, recipes
from semiseg.engine.hyperparameters import hyperparameters
from semiseg.engine.recipe import Recipe, method_of
from semiseg.engine.trainer import Trainer

METHODS = ("supervised", "cac", "cps", "cutmix_cps")
DATASETS = ("voc", "cityscapes", "folder", "shapes")


def test_every_method_has_a_recipe_for_every_data_set():
    assert sorted(recipes()) == sorted(f"{method}_{dataset}" for method in METHODS for dataset in DATASETS)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_builds_is_named_after_itself_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert f"{method_of(recipe)}_{recipe.layout}" == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert hyperparameters(recipe)["steps"] == recipe.steps
    replace(recipe, dry_run=True).check()


@pytest.mark.parametrize(
    ("name", "steps", "crop", "lr", "backbone_lr", "decay", "weight"),
    [
        ("cac_voc", 92_560, 320, 0.01, 0.001, 1e-4, 0.1),
        ("cac_cityscapes", 92_560, 720, 0.1, 0.01, 1e-4, 0.1),
        ("cps_voc", 39_338, 512, 0.0025, 0.0025, 4e-4, 1.5),
        ("cps_cityscapes", 44_525, 800, 0.0025, 0.0025, 8e-4, 6.0),
        ("cutmix_cps_voc", 39_338, 512, 0.0025, 0.0025, 4e-4, 1.0),
        ("cutmix_cps_cityscapes", 44_525, 800, 0.0025, 0.0025, 8e-4, 5.0),
    ],
)
def test_published_numbers(name, steps, crop, lr, backbone_lr, decay, weight):
    values = hyperparameters(load_recipe(name))
    assert (values["steps"], values["crop"]) == (steps, crop)
    assert values["batch"] == {"labeled": 8, "unlabeled": 8}
    assert list(values["loss_weights"].values()) == [1.0, weight]
    for group in values["groups"]:
        assert group["lr"] == pytest.approx(backbone_lr if "backbone" in group["name"] else lr)
        assert group["weight_decay"] == (0.0 if group["name"].endswith("rest") else decay)


@pytest.mark.parametrize("name", [name for name in recipes() if name.endswith(("voc", "cityscapes"))])
def test_training_and_evaluation_see_images_at_their_own_scale_with_the_published_crop(name):
    recipe = load_recipe(name)
    assert recipe.evaluation.scale_of(1024, 2048, recipe.crop) == 1
    for augmentation in (recipe.labeled, recipe.unlabeled):
        assert augmentation.scale == "long_side" or augmentation.native_crop == recipe.crop


def test_cityscapes_scales_and_ohem():
    cac, cps = load_recipe("cac_cityscapes"), load_recipe("cps_cityscapes")
    assert round(cac.labeled.base * cac.crop) == 2048
    assert round(cps.method.ohem * cps.crop**2) == 50_000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("disk", "lists"), [("labelIds", "labelTrainIds"), ("labelTrainIds", "labelIds")])
def test_cityscapes_takes_two_steps_whatever_the_lists_call_the_masks(cityscapes_root, tmp_path, method, disk, lists):
    root = cityscapes_root(kind=disk)
    line = "leftImg8bit/train/{0}/{1}_leftImg8bit.png gtFine/train/{0}/{1}_gtFine_{2}.png\n"
    ids = sorted(path.name.removesuffix("_leftImg8bit.png") for path in (root / "leftImg8bit/train").rglob("*.png"))
    labeled, unlabeled = tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"
    for path, part in ((labeled, ids[:2]), (unlabeled, ids[2:])):
        path.write_text("".join(line.format(name.split("_")[0], name, lists) for name in part))
    recipe = replace(
        load_recipe(f"{method}_cityscapes"),
        data=root,
        split=f"{labeled},{unlabeled}",
        backbone="resnet18",
        head_width=16,
        weights="none",
        crop=32,
        batch=2,
        steps=2,
        threads=1,
        device="cpu",
        backend="host",
        out=tmp_path / "run",
    )
    result = Trainer(recipe).train()
    assert result.steps == 2
    assert len(result.iou) == 19
    assert result.labeled == 2
