"""The recipe: checks that name the field and the fix, and its form as plain values."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from semiseg.engine.catalogue import load_recipe, recipes
from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.protocol import Evaluation
from semiseg.engine.recipe import Recipe
from semiseg.engine.runtime import Runtime
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import Augmentation


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 50}, "--crop: 50 is not a multiple of 8, as the pairs of cac ask for; use 48 or 56"),
        ({"crop": 321}, "--crop.*320 or 328"),
        ({"crop": 8}, "--crop: must be at least 16"),
        ({"backbone": "resnet5"}, "--backbone.*did you mean resnet50"),
        ({"backbone": "dinov2_small"}, "--backbone.*pass --network dpt"),
        ({"network": "dpt"}, "--backbone.*backbones dinov2_small"),
        ({"network": "dpt", "backbone": "dinov2_base"}, "--network: cac compares positions 8 pixels apart.*1.75"),
        ({"batch": 1}, "--batch.*at least 2"),
        ({"lr": -1.0}, "--lr"),
        ({"labeled": Augmentation(range=(2.0, 1.0))}, "--labeled.range"),
        ({"unlabeled": Augmentation(flip=2.0)}, "--unlabeled.flip"),
        ({"evaluation": Evaluation(batch=0)}, "--evaluation.batch"),
        ({"evaluation": Evaluation(window=0)}, "--evaluation.window.*at least 16"),
        ({"evaluation": Evaluation(native_crop=0)}, "--evaluation.native-crop"),
        ({"evaluation": Evaluation(long_side=-1.0)}, "--evaluation.long-side"),
        ({"evaluation": Evaluation(longest=0.0)}, "--evaluation.longest"),
        ({"labeled": Augmentation(scale="own", longest=-1.0)}, "--labeled.longest"),
        ({"method": CacConfig(bank_steps=0)}, "--method.bank-steps"),
        ({"method": CpsConfig(ohem=-1.0)}, "--method.ohem"),
        ({"steps": 0}, "--steps"),
        ({"eval_every": 0}, "--eval-every"),
        ({"patience": 0}, "--patience"),
        ({"seed": -1}, "--seed"),
        ({"save_every": "5h"}, "--save-every: must be minutes .5m. or steps .500., is 5h"),
        ({"save_every": "0m"}, "--save-every"),
        ({"keep": 0}, "--keep: must be at least 1, is 0"),
        ({"timeout": 0.0}, "--timeout: must be more than 0 minutes"),
        ({"timeout": 1e300}, "--timeout: .*at most the 525600 of a year"),
        ({"evaluation": Evaluation(scale=1e300)}, "--evaluation.scale: .*at most 1000000000"),
        ({"fidelity": "published"}, "--fidelity"),
    ],
)
def test_check_names_the_field_and_the_fix(tmp_path, changes, said):
    recipe = load_recipe("cac_voc").replace(data=tmp_path)
    recipe.check()
    with pytest.raises(UsageError, match=said):
        recipe.replace(**changes).check()


@pytest.mark.parametrize("crop", [16, 50, 321, 513, 801])
def test_deeplabs_take_crops_of_any_size(tmp_path, crop):
    for network in ("cac", "cps", "unimatch", "u2pl"):
        load_recipe("cutmix_cps_voc").replace(data=tmp_path, network=network, crop=crop).check()


@pytest.mark.parametrize(("crop", "near"), [(518, ""), (28, ""), (520, "518 or 532"), (13, "at least 14")])
def test_dinov2_takes_multiples_of_its_patches(tmp_path, crop, near):
    recipe = load_recipe("cps_voc").replace(data=tmp_path, network="dpt", backbone="dinov2_small", crop=crop)
    if near:
        with pytest.raises(UsageError, match=f"--crop.*{near}"):
            recipe.check()
    else:
        recipe.check()
        assert (recipe.protocol().window, recipe.protocol().multiple) == (crop, 14)
    window = recipe.replace(crop=28, evaluation=Evaluation(protocol="slide", window=500))
    with pytest.raises(UsageError, match=r"--evaluation\.window: 500 is not a multiple of 14; use 490 or 504"):
        window.check()


def test_the_encoder_decides_the_colour_outside_of_images():
    for backbone, fill in (("resnet18", (124, 116, 104)), ("efficientnet_lite0", (128, 128, 128))):
        assert load_recipe("cps_voc").replace(backbone=backbone).drawing().fill == fill


def test_from_dict_restores_types_and_refuses_strangers(tmp_path):
    recipe = load_recipe("cutmix_cps_cityscapes").replace(data=tmp_path, init=tmp_path / "a", seed=7)
    values = recipe.to_dict()
    assert Recipe.from_dict(values) == recipe
    assert type(Recipe.from_dict(values).method).__name__ == "CutMixCpsConfig"
    with pytest.raises(UsageError, match="recipe"):
        Recipe.from_dict(values | {"colour": "blue"})
    with pytest.raises(UsageError, match="recipe"):
        Recipe.from_dict(values | {"method": {"type": "Unknown"}})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("crop", "abc", "crop: must be a whole number, is 'abc'"),
        ("crop", 32.0, "crop: must be a whole number, is 32.0"),
        ("steps", True, "steps: must be a whole number, is True"),
        ("lr", "0.1", "lr: must be a number"),
        ("lr", math.inf, "lr: must be a number, is inf"),
        ("betas", [0.9], "betas: must be a list of 2"),
        ("betas", [0.9, "x"], r"betas\[1\]: must be a number, is 'x'"),
        ("name", 3, "name: must be text"),
        ("layout", "camvid", "layout: must be one of .*voc.*, is 'camvid'"),
        ("network", None, "network: must be one of"),
        ("evaluation.protocol", "x", "evaluation.protocol: must be one of whole, slide, "),
        ("evaluation", [], "evaluation: must be an object"),
        ("method", "cac", "method: must be an object"),
        ("method.type", ["cac"], "method.type: must be text"),
        ("method.threshold", {}, "method.threshold: must be a number"),
        ("method.tau", 1, "method.tau: there is no such field"),
        ("files.images", 3, "files.images: must be text"),
        ("data", 3, "data: must be a path"),
        ("graph", "maybe", "graph: must be one of auto, on, off"),
    ],
)
def test_from_dict_looks_at_every_type(path, value, said):
    values = load_recipe("cac_voc").to_dict()
    *outer, last = path.split(".")
    inner = values
    for name in outer:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(UsageError, match=rf"^recipe: not one of this version of semiseg \({said}"):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": "abc"}, "recipe.crop: must be a whole number, is 'abc'"),
        ({"batch": True}, "recipe.batch: must be a whole number, is True"),
        ({"lr": math.nan}, "recipe.lr: must be a number, is nan"),
        ({"betas": (0.9,)}, r"recipe.betas: must be a list of 2, is \(0.9,\)"),
        ({"network": None}, "recipe.network: must be one of cac, "),
        ({"keep": "2"}, "recipe.runtime.keep: must be a whole number, is '2'"),
        ({"runtime": Runtime(data=3)}, "recipe.runtime.data: must be a path, is 3"),
        ({"labeled": {"flip": 0.5}}, "recipe.labeled: must be of type Augmentation, is {'flip': 0.5}"),
        ({"labeled": Augmentation(flip="half")}, "recipe.labeled.flip: must be a number, is 'half'"),
        ({"method": "cac"}, "recipe.method: must be of type MethodConfig, is 'cac'"),
        ({"method": CacConfig(threshold=None)}, "recipe.method.threshold: must be a number, is None"),
    ],
)
def test_check_looks_at_every_type(tmp_path, changes, said):
    with pytest.raises(UsageError, match=f"^{said}"):
        load_recipe("cac_voc").replace(data=tmp_path).replace(**changes).check()


def test_from_python_texts_are_paths_and_lists_are_tuples(tmp_path):
    load_recipe("cac_voc").replace(data=str(tmp_path), betas=[0.9, 0.95], lr=1).check()


@pytest.mark.parametrize("name", recipes())
def test_recipes_hold_what_their_types_say(tmp_path, name):
    load_recipe(name).replace(data=tmp_path).check()


@pytest.mark.parametrize("values", [None, 3, "x", [], {}, {"name": "x"}])
def test_from_dict_takes_nothing_but_a_whole_recipe(values):
    with pytest.raises(UsageError, match="not one of this version"):
        Recipe.from_dict(values)


@pytest.mark.parametrize("name", recipes())
def test_recipes_are_the_same_after_json(name):
    for recipe in (load_recipe(name), load_recipe(name).as_published()):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_unlabelled_images_follow_the_batch():
    assert load_recipe("cac_voc").replace(batch=4).unlabeled_batch == 4


def test_images_are_evaluated_at_the_scale_of_training():
    voc, own, cps = (load_recipe(name).evaluation for name in ("cac_voc", "cac_folder", "cps_voc"))
    assert voc.resolve(320).scales_of(375, 500) == (1.0,)
    assert voc.resolve(128).scales_of(375, 500) == (pytest.approx(0.4),)
    assert own.resolve(320).scales_of(3000, 4000) == (pytest.approx(0.24),)
    assert own.resolve(320).scales_of(960, 540) == (1.0,)
    assert own.resolve(160).scales_of(960, 540) == (0.5,)
    assert replace(own, scale=2.0).resolve(160).scales_of(960, 540) == (2.0,)
    assert replace(own, long_side=4.0).resolve(160).scales_of(960, 540) == (pytest.approx(2 / 3),)
    assert cps.resolve(512).scales_of(375, 500) == (1.0,)
    assert cps.resolve(128).scales_of(375, 500) == (0.25,)
    assert Evaluation(scale=0.5, native_crop=320, scales=(1.0, 2.0)).resolve(320).scales_of(375, 500) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (Evaluation(), "whole"),
        (Evaluation(protocol="slide"), "slide 96"),
        (Evaluation(protocol="slide", window=64, flip=True), "slide 64, flip"),
        (Evaluation(native_crop=192), "whole, scale 0.5"),
        (Evaluation(long_side=1.25, scales=(0.5, 1.0)), "whole, long side 120, scales 0.5 1"),
        (Evaluation(longest=3), "whole, long side at most 288"),
        (Evaluation(longest=3, long_side=4), "whole, long side 384"),
        (
            Evaluation(protocol="cac-whole", absent="skip", background=False),
            "cac-whole, absent classes skip, without background",
        ),
    ],
)
def test_a_protocol_is_told_in_a_few_words(evaluation, words):
    assert str(evaluation.resolve(96)) == words


def test_all_faults_are_told_together(tmp_path):
    recipe = load_recipe("cac_voc").replace(data=tmp_path, crop=50, batch=1, lr=-1.0, threads=-1)
    with pytest.raises(UsageError) as refused:
        recipe.check()
    said = str(refused.value)
    assert said.startswith("4 faults: (1) ")
    assert all(field in said for field in ("--crop", "--batch", "--lr", "--threads"))


def test_a_recipe_s_plain_values_are_of_one_level(tmp_path):
    recipe = load_recipe("cac_voc").replace(data=tmp_path, device="cpu", log_every=3)
    values = recipe.to_dict()
    assert values["device"] == "cpu"
    assert "runtime" not in values
    assert Recipe.from_dict(values) == recipe


def test_a_runtime_and_a_value_of_it_are_replaced_together(tmp_path):
    recipe = load_recipe("cac_voc").replace(runtime=Runtime(device="cpu", log_every=3), data=tmp_path)
    assert recipe.runtime == Runtime(device="cpu", log_every=3, data=tmp_path)


@pytest.mark.parametrize("path", ["out.typo", "steps.typo", "method.typo", "typo"])
def test_a_path_to_nothing_is_no_setting(path):
    with pytest.raises(UsageError, match=f"^{path}: no setting of cac_voc"):
        load_recipe("cac_voc", **{path: 1})


def test_a_method_without_a_published_program_is_as_published_as_it_gets(tmp_path, monkeypatch):
    recipe = load_recipe("supervised_voc").replace(data=tmp_path, fidelity="published")
    assert any("fidelity" in fault for fault in recipe.faults())
    monkeypatch.setattr(recipe.method_class, "switches", staticmethod(lambda layout: {}))
    assert not any("fidelity" in fault for fault in recipe.faults())


def test_what_a_resume_may_change_decides_nothing(tmp_path):
    recipe = load_recipe("cac_voc")
    moved = recipe.replace(data=tmp_path, out=tmp_path, device="cuda", precision="bf16", weights="none", log_every=1)
    assert moved.decisive() == recipe.decisive()
    for change in ({"crop": 336}, {"seed": 1}, {"split": "all"}, {"decay": "weights"}):
        assert recipe.replace(**change).decisive() != recipe.decisive()


@pytest.mark.parametrize(
    ("steps", "said", "every"), [(30, None, 50), (1000, None, 50), (92_560, None, 4628), (30, 1, 1), (92_560, 10, 10)]
)
def test_short_runs_are_not_evaluated_at_every_step(steps, said, every):
    assert load_recipe("cac_voc").replace(steps=steps, eval_every=said).steps_between_evaluations() == every


def test_what_a_save_is_due_after():
    recipe = load_recipe("cac_voc")
    cadences = [recipe.replace(save_every=said).runtime.cadence() for said in ("5m", ".5m", "500", "5m")]
    assert cadences == [(300, math.inf), (30, math.inf), (math.inf, 500), (300, math.inf)]
    assert recipe.runtime.cadence() == cadences[0]


def test_images_that_are_smaller_than_the_longest_are_not_enlarged():
    own = load_recipe("cac_folder").evaluation
    assert own.resolve(320).scales_of(480, 640) == (1.0,)
    assert Evaluation(native_crop=640, longest=3.0).resolve(320).scales_of(480, 640) == (0.5,)
