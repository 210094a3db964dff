"""The recipe: checks that name the field and the fix, and its form as plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import Augmentation


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 50}, "--crop.*48 or 64"),
        ({"crop": 8}, "--crop.*use 16"),
        ({"batch": 1}, "--batch.*at least 2"),
        ({"lr": -1.0}, "--lr"),
        ({"labeled": Augmentation(range=(2.0, 1.0))}, "--labeled.range"),
        ({"unlabeled": Augmentation(flip=2.0)}, "--unlabeled.flip"),
        ({"evaluation": Evaluation(batch=0)}, "--evaluation.batch"),
        ({"method": CacConfig(bank_steps=0)}, "--method.bank-steps"),
        ({"method": CpsConfig(ohem=-1.0)}, "--method.ohem"),
        ({"steps": 0}, "--steps"),
        ({"eval_every": 0}, "--eval-every"),
        ({"seed": -1}, "--seed"),
        ({"resume": True}, "--out"),
        ({"fidelity": "published"}, "--fidelity"),
    ],
)
def test_check_names_the_field_and_the_fix(tmp_path, changes, said):
    recipe = replace(load_recipe("cac_voc"), data=tmp_path)
    recipe.check()
    with pytest.raises(UsageError, match=said):
        replace(recipe, **changes).check()


def test_data_is_needed_but_for_a_dry_run_and_for_shapes():
    with pytest.raises(UsageError, match="--data"):
        load_recipe("cac_voc").check()
    replace(load_recipe("cac_voc"), dry_run=True).check()
    load_recipe("cac_shapes").check()


def test_from_dict_restores_types_and_refuses_strangers(tmp_path):
    recipe = replace(load_recipe("cutmix_cps_cityscapes"), data=tmp_path, init=tmp_path / "a", seed=7)
    values = recipe.to_dict()
    assert Recipe.from_dict(values) == recipe
    assert type(Recipe.from_dict(values).method).__name__ == "CutMixCpsConfig"
    with pytest.raises(UsageError, match="recipe"):
        Recipe.from_dict(values | {"colour": "blue"})
    with pytest.raises(UsageError, match="recipe"):
        Recipe.from_dict(values | {"method": {"type": "Unknown"}})


def test_unlabelled_images_follow_the_batch():
    assert replace(load_recipe("cac_voc"), batch=4).unlabeled_batch == 4


def test_images_are_evaluated_at_the_scale_of_training():
    voc, own = load_recipe("cac_voc").evaluation, load_recipe("cac_folder").evaluation
    assert voc.scale_of(375, 500, 320) == 1
    assert voc.scale_of(375, 500, 128) == pytest.approx(0.4)
    assert own.scale_of(3000, 4000, 320) == pytest.approx(0.1)
    cps = load_recipe("cps_voc")
    assert cps.evaluation.scale_of(375, 500, 512) == 1
    assert cps.evaluation.scale_of(375, 500, 128) == pytest.approx(cps.crop / cps.labeled.native_crop / 4)
    assert Evaluation(scale=0.5, native_crop=320).scale_of(375, 500, 320) == 0.5
    assert Evaluation().describe(96) == "whole"
    assert Evaluation(protocol="slide").describe(96) == "slide 96"
