"""Every recipe: it builds, it carries the published numbers, and it trains."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from semiseg.engine.catalogue import find_recipe, load_recipe, recipes
from semiseg.engine.commands.train import parse
from semiseg.engine.hyperparameters import hyperparameters, settings
from semiseg.engine.methods import METHODS
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.datasets.layouts import LAYOUTS
from semiseg.pipelines.datasets.registry import SPLITS
from semiseg.pipelines.errors import UsageError
from semiseg.recipes import published

OF_ONE_METHOD = {"ade20k": "unimatch_v2", "coco": "unimatch_v2"}
"""The one method whose program was run on a data set with a network that is to be had here."""


def test_every_method_has_a_recipe_for_every_data_set():
    expected = {f"{OF_ONE_METHOD.get(dataset, method)}_{dataset}" for method in METHODS for dataset in LAYOUTS}
    assert sorted(recipes()) == sorted(expected)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_builds_is_named_after_itself_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    method = type(recipe.method).__module__.rpartition(".")[2]
    assert f"{method}_{recipe.layout}" == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert hyperparameters(recipe)["steps"] == recipe.steps
    recipe.check()


@pytest.mark.parametrize("name", recipes())
def test_images_are_judged_at_the_scale_of_training_at_any_crop(name):
    recipe = load_recipe(name)
    crop = 112  # which every encoder takes
    before, now = recipe.protocol(), recipe.replace(crop=crop).protocol()
    follows = recipe.labeled.scale != "own"
    assert now.scale / before.scale == pytest.approx(crop / recipe.crop if follows else 1)
    assert before.long_side is now.long_side is None
    assert now.longest == (recipe.labeled.longest and recipe.labeled.longest * crop)


def test_whatever_decides_a_result_is_among_the_settings():
    recipe = load_recipe("fixmatch_folder")
    known = settings(recipe)
    for changes in (
        {"unlabeled": replace(recipe.unlabeled, hue=0.0)},
        {"labeled": replace(recipe.labeled, fill="black")},
        {"sampling": replace(recipe.sampling, repeat_boxes=True)},
        {"weights": "none"},
        {"evaluation": replace(recipe.evaluation, flip=True)},
    ):
        changed = settings(recipe.replace(**changes))
        assert len([name for name in known if known[name] != changed[name]]) == 1


@pytest.mark.parametrize(
    ("name", "settings", "flags"),
    [
        ("cutmix_cps_voc", {"split": "voc-original-92"}, ["--split", "voc-original-92"]),
        ("unimatch_voc", {"split": "voc-original-92"}, ["--split", "voc-original-92"]),
        ("cac_voc", {"backbone": "resnet101"}, ["--backbone", "resnet101"]),
        ("cps_voc", {"batch": 4}, ["--batch", "4"]),
        ("cps_voc", {"batch": 4, "lr": 0.5}, ["--batch", "4", "--lr", "0.5"]),
        ("cps_voc", {"batch": 4, "scale_lr": "none"}, ["--batch", "4", "--scale-lr", "none"]),
        ("cps_voc", {"fidelity": "published", "steps": 7}, ["--fidelity", "published", "--steps", "7"]),
    ],
)
def test_settings_from_python_are_flags_of_the_shell(name, settings, flags):
    recipe = load_recipe(name, **settings)
    assert recipe == parse(find_recipe(name), flags)[0].recipe
    assert recipe != load_recipe(name)


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


@pytest.mark.parametrize(
    ("name", "steps", "crop", "batch", "backbone_lr", "lr", "decay", "weights", "threshold"),
    [
        ("fixmatch_voc", 104_880, 321, 8, 1e-3, 1e-2, 1e-4, [0.5, 0.5], 0.95),
        ("fixmatch_cityscapes", 83_760, 801, 8, 5e-3, 5e-3, 1e-4, [0.5, 0.5], 0.0),
        ("unimatch_voc", 104_880, 321, 8, 1e-3, 1e-2, 1e-4, [0.5, 0.25, 0.25], 0.95),
        ("unimatch_cityscapes", 83_760, 801, 8, 5e-3, 5e-3, 1e-4, [0.5, 0.25, 0.25], 0.0),
        ("unimatch_v2_voc", 39_300, 518, 16, 5e-6, 2e-4, 0.01, [0.5, 0.5], 0.95),
        ("unimatch_v2_cityscapes", 62_820, 798, 8, 5e-6, 2e-4, 0.01, [0.5, 0.5], 0.95),
        ("cutmix_seg_voc", 40_000, 321, 10, 1e-6, 1e-5, 0.0, [1.0, 1.0], 0.97),
        ("cutmix_seg_cityscapes", 40_000, 362, 4, 1e-6, 1e-5, 0.0, [1.0, 1.0], 0.97),
    ],
)
def test_published_numbers_of_weak_and_strong_views(
    name, steps, crop, batch, backbone_lr, lr, decay, weights, threshold
):
    split = "voc-original-92" if name.endswith("voc") else "city-cps-1/16"
    recipe = find_recipe(name)(split)
    values = hyperparameters(recipe)
    assert (values["steps"], values["crop"]) == (steps, crop)
    assert values["batch"] == {"labeled": batch, "unlabeled": batch}
    assert list(values["loss_weights"].values()) == weights
    assert values["method"]["threshold"] == threshold
    (backbone, head) = values["groups"]
    assert (backbone["lr"], head["lr"]) == (pytest.approx(backbone_lr), pytest.approx(lr))
    assert backbone["weight_decay"] == head["weight_decay"] == decay
    kept = round(recipe.method.ohem * recipe.crop**2 * 2)
    assert kept == (200_000 if name in {f"{m}_cityscapes" for m in ("fixmatch", "unimatch", "unimatch_v2")} else 0)


@pytest.mark.parametrize(
    ("layout", "split", "steps", "crop", "backbone_lr", "decay", "processes", "kept", "start"),
    [
        ("voc", "voc-u2pl-1/16", 49_600, 513, 1e-3, 1e-4, 4, 0, 1 / 80),
        ("cityscapes", "city-u2pl-1/16", 34_800, 769, 1e-2, 5e-4, 8, 100_000, 0.0),
    ],
)
def test_published_numbers_of_u2pl(layout, split, steps, crop, backbone_lr, decay, processes, kept, start):
    recipe = find_recipe(f"u2pl_{layout}")(split)
    values = hyperparameters(recipe)
    assert (values["steps"], values["crop"], values["batch"]) == (steps, crop, {"labeled": 16, "unlabeled": 16})
    # Every process divides the contrastive term by their number, and so does the mean over them.
    assert values["loss_weights"] == {"supervised": 1.0, "pseudo": 1.0, "contrastive": 1 / processes}
    for group in values["groups"]:
        assert group["lr"] == pytest.approx(backbone_lr if "backbone" in group["name"] else 1e-2)
        assert group["weight_decay"] == decay
    method, epoch = values["method"], 1 / (80 if layout == "voc" else 200)
    assert (method["start"], method["teacher_start"]) == (start, start + epoch)
    settings = ("ema", "unreliable", "temperature", "anchor_threshold")
    assert [method[name] for name in settings] == [0.99, 0.2, 0.5, 0.3]
    assert [method[name] for name in ("anchors", "negatives", "low_rank", "high_rank")] == [256, 50, 3, 20]
    assert round(recipe.method.ohem * 2 * recipe.crop**2) == kept


def test_optimizers_teachers_and_schedules_of_weak_and_strong_views():
    values = {name: hyperparameters(load_recipe(f"{name}_voc")) for name in ("unimatch", "unimatch_v2", "cutmix_seg")}
    assert values["unimatch"]["optimizer"] == {"name": "sgd", "momentum": 0.9}
    for name, ema, schedule in (("unimatch_v2", 0.996, "poly"), ("cutmix_seg", 0.99, "constant")):
        assert values[name]["optimizer"] == {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-8}
        assert (values[name]["method"]["ema"], values[name]["schedule"]) == (ema, schedule)
    mean_teacher = hyperparameters(load_recipe("mean_teacher_voc"))
    assert (mean_teacher["steps"], mean_teacher["method"]["ema"]) == (34 * 578, 0.99)
    assert mean_teacher["loss_weights"] == {"supervised": 1.0, "consistency": 100.0}
    assert {group["lr"] for group in mean_teacher["groups"]} == {0.005}


@pytest.mark.parametrize(
    ("name", "split", "steps"),
    [
        ("unimatch_voc", "voc-original-183", 80 * 1300),
        ("unimatch_voc", "voc-original-1464", 80 * 1140),
        ("unimatch_voc", "draw:1464@3", 80 * 1140),
        ("unimatch_voc", "all", 80 * 1157),
        ("unimatch_v2_voc", "voc-original-366", 60 * 638),
        ("unimatch_v2_cityscapes", "draw:1/2@0", 180 * 186),
        ("unimatch_v2_ade20k", "draw:1/16@0", 60 * 2368),  # as its logs count
        ("unimatch_v2_coco", "draw:1/32@0", 20 * 7162),
    ],
)
def test_steps_of_unimatch_are_passes_over_the_unlabelled_images(name, split, steps):
    assert find_recipe(name)(split).steps == steps


def test_two_list_files_bring_the_steps_of_their_unlabelled_images(tmp_path):
    """Whatever the lists: those of ADE20K and COCO have no names. An image on both sides is labelled."""
    labeled, unlabeled = tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"
    labeled.write_text("images/a.jpg masks/a.png\nimages/b.jpg masks/b.png\n")
    unlabeled.write_text(
        "".join(f"images/{number}.jpg masks/{number}.png\n" for number in range(41)) + "images/b.jpg\n"
    )
    assert find_recipe("unimatch_v2_ade20k")(f"{labeled},{unlabeled}").steps == 60 * (11 // 2)
    assert find_recipe("unimatch_v2_ade20k")(str(labeled)).steps == find_recipe("unimatch_v2_ade20k")().steps
    with pytest.raises(UsageError, match=r"none\.txt does not exist"):
        find_recipe("unimatch_v2_ade20k")(f"{labeled},{tmp_path / 'none.txt'}")


CPS_STEPS = {  # of the released program
    "voc": {"1/16": 39_680, "1/8": 39_338, "1/4": 39_680, "1/2": 39_660},
    "cityscapes": {"1/16": 44_544, "1/8": 44_525, "1/4": 44_640, "1/2": 44_640},
}


@pytest.mark.parametrize("dataset", CPS_STEPS)
@pytest.mark.parametrize("method", ["cps", "cutmix_cps"])
@pytest.mark.parametrize("share", ["1/16", "1/8", "1/4", "1/2"])
def test_steps_of_cps_follow_the_share_of_a_split_whatever_its_lists(dataset, method, share):
    recipe, prefix = find_recipe(f"{method}_{dataset}"), {"voc": "voc", "cityscapes": "city"}[dataset]
    for split in (f"{prefix}-cps-{share}", f"{prefix}-u2pl-{share}", f"draw:{share}@3"):
        assert recipe(split).steps == CPS_STEPS[dataset][share]
        assert recipe(split).split == split
    assert recipe("draw:1/30@0") == replace(recipe(), split="draw:1/30@0")
    with pytest.raises(UsageError, match="published lists"):
        recipe(share)


def test_cac_and_the_baseline_train_as_long_on_every_split():
    for name in ("cac_voc", "cac_cityscapes", "supervised_voc", "supervised_cityscapes"):
        for split in ("draw:1/4@0", "all"):
            assert find_recipe(name)(split).steps == 92_560


def test_few_labels():
    recipe = find_recipe("cutmix_cps_voc")
    for split in ("voc-original-92", "voc-cps-pseudoseg-732"):
        assert (recipe(split).steps, recipe(split).method.weight) == (30 * (10_582 // 8), 0.1)
    assert recipe("voc-cps-1/16").method.weight == 1.0


def test_the_bank_of_cac_follows_the_backbone():
    steps = {backbone: find_recipe("cac_voc")(backbone=backbone).method.bank_steps for backbone in published.BACKBONES}
    assert steps == {"resnet50": 2, "resnet101": 3}
    assert find_recipe("cac_cityscapes")().method.bank_steps == 1


@pytest.mark.parametrize("row", published.ROWS, ids=lambda row: f"{row.method}-{row.split}-{row.backbone}")
def test_every_published_row_is_a_recipe(row):
    recipe, default = row.recipe(), load_recipe(f"{row.method}_{row.dataset}")
    assert (recipe.layout, recipe.split, recipe.backbone) == (row.dataset, row.split, row.backbone)
    assert type(recipe.method) is type(default.method)
    differing = {field.name for field in fields(recipe) if recipe.get(field.name) != default.get(field.name)}
    assert differing <= {"split", "backbone", "steps", "method"}
    recipe.check()
    if row.split in SPLITS:
        assert SPLITS[row.split].layout == row.dataset
    share = next((share for share in CPS_STEPS["voc"] if row.split.endswith(f"cps-{share}")), None)
    if share and "cps" in row.method:
        assert recipe.steps == CPS_STEPS[row.dataset][share]


def test_the_rows_cover_every_method_share_and_backbone():
    assert len({(row.method, row.dataset, row.split, row.backbone) for row in published.ROWS}) == len(published.ROWS)
    rows = [(row.method, row.split, row.backbone) for row in published.ROWS]
    for method in ("cps", "cutmix_cps"):
        for prefix in ("voc", "city"):
            for share in CPS_STEPS["voc"]:
                assert {b for m, s, b in rows if (m, s) == (method, f"{prefix}-cps-{share}")} == {*published.BACKBONES}


@pytest.mark.parametrize(
    ("method", "miou", "confirmed", "text"), [("cps", 73.2, True, "73.20"), ("cac", 72.0, False, "72.0?")]
)
def test_a_number_has_the_digits_of_its_paper_and_a_question_mark_if_it_is_from_memory(method, miou, confirmed, text):
    assert str(published.Row(method, "voc", "all", "resnet50", miou, confirmed)) == text


def test_the_table_of_the_docs_is_the_one_that_the_command_prints():
    docs = (Path(__file__).parents[2] / "docs/published.md").read_text()
    assert published.markdown() in docs


@pytest.mark.parametrize("name", [name for name in recipes() if name.endswith(("voc", "cityscapes"))])
def test_training_and_evaluation_see_images_at_their_own_scale_with_the_published_crop(name):
    """But for CAC's and the baseline's training on VOC, whose long sides are drawn around 400, and for CutMix-Seg,
    which sees Cityscapes at half size."""
    recipe = load_recipe(name)
    assert recipe.protocol().scales_of(1024, 2048) == (0.5 if name == "cutmix_seg_cityscapes" else 1,)
    for augmentation in (recipe.labeled, recipe.unlabeled)[: 1 if "supervised" in name else 2]:
        if "match" in name:
            assert (augmentation.scale, augmentation.range) == ("own", (0.5, 2.0))
        elif name.startswith("u2pl"):
            assert (augmentation.scale, augmentation.range, augmentation.even_odds) == ("own", (0.5, 2.0), True)
        elif name.startswith(("cps", "cutmix", "mean_teacher")):
            assert (augmentation.scale, augmentation.native_crop) == ("factors", recipe.crop)
        else:
            long_side = {"voc": 400, "cityscapes": 2048}[recipe.layout]
            assert (augmentation.scale, round(augmentation.base * recipe.crop)) == ("long_side", long_side)


@pytest.mark.parametrize("name", [name for name in recipes() if name.endswith(("folder", "shapes"))])
def test_unlabelled_images_are_seen_at_the_scale_of_labelled_ones(name):
    recipe = load_recipe(name)
    if recipe.views.windows:
        fields = ("scale", "base", "longest", "filter", "native_crop")
        assert all(getattr(recipe.labeled, field) == getattr(recipe.unlabeled, field) for field in fields)


def test_ohem_on_cityscapes_keeps_as_many_pixels_as_published():
    recipe = load_recipe("cps_cityscapes")
    assert round(recipe.method.ohem * recipe.crop**2) == 50_000


@pytest.mark.parametrize(
    ("method", "disk", "lists"),
    [
        *((method, "labelIds", "labelTrainIds") for method in METHODS),
        ("supervised", "labelTrainIds", "labelIds"),  # methods see classes, never the masks on disk
    ],
)
def test_cityscapes_takes_two_steps_whatever_the_lists_call_the_masks(cityscapes_root, tmp_path, method, disk, lists):
    root = cityscapes_root(kind=disk)
    line = "leftImg8bit/train/{0}/{1}_leftImg8bit.png gtFine/train/{0}/{1}_gtFine_{2}.png\n"
    ids = sorted(path.name.removesuffix("_leftImg8bit.png") for path in (root / "leftImg8bit/train").rglob("*.png"))
    labeled, unlabeled = tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"
    for path, part in ((labeled, ids[:2]), (unlabeled, ids[2:])):
        path.write_text("".join(line.format(name.split("_")[0], name, lists) for name in part))
    recipe = load_recipe(f"{method}_cityscapes").replace(
        data=root,
        split=f"{labeled},{unlabeled}",
        network="cac",
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


@pytest.mark.parametrize("name", METHODS)
def test_own_images_and_the_demo_train_with_the_same_settings(name):
    """What `make demo` shows is what one's own images get, but for the weight of CutMix-Seg's squared errors, which is
    too much for photographs."""
    own, demo = (load_recipe(f"{name}_{layout}").method for layout in ("folder", "shapes"))
    if name == "cutmix_seg":
        assert (own.weight, demo.weight) == (5.0, 30.0)
        demo = replace(demo, weight=own.weight)
    assert own == demo


COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "jitter_order": "fixed"}
PAIRS = {"range": (0.8, 2.0), "jitter": 0.8, "gray": 0.2, "blur": 0.5, "sigma": (1.1, 1.1), "blur_radius": 2}
CAC = {"filter": "cubic", "fill": "mean", "padding": "corner", "flip": 0.5}
CPS = {"filter": "linear", "fill": "mean", "flip": 0.5, "factors": (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)}
TENTHS = CPS | {"factors": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5), "padding": "centre"}
HALF = CPS | {"factors": (0.5,)}
OWN = {"filter": "antialiased", "fill": "black", "flip": 0.5, "range": (0.5, 2.0)}
WEAK = {"jitter": 0.0, "gray": 0.0, "blur": 0.0}
PLAIN_STRONG = COLOURS | {"jitter": 0.8, "jitter_order": "random", "gray": 0.2, "blur": 0.0}
STRONG = {"jitter": 0.8, "jitter_order": "random", "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25}
STRONG |= {"gray": 0.2, "blur": 0.5, "sigma": (0.1, 2.0), "blur_radius": 6, "blur_last": True}
FOLDER = CAC | {"scale": "own", "range": (0.5, 1.5), "longest": 3.0}
SHAPES = CAC | {"scale": "long_side", "base": 1.5, "range": (0.75, 1.5)}
OF_SHAPES = SHAPES | STRONG | {"hue": 15 / 360, "gray": 0.0}


@pytest.mark.parametrize(
    ("name", "labeled", "unlabeled"),
    [
        ("supervised_voc", CAC | WEAK | {"range": (0.5, 2.0)}, {}),
        ("supervised_cityscapes", CAC | COLOURS | {"range": (0.5, 2.0), "jitter": 1.0, "gray": 0.0, "blur": 0.0}, {}),
        ("cac_voc", CAC | WEAK | {"range": (0.5, 2.0)}, CAC | COLOURS | PAIRS),
        ("cac_cityscapes", CAC | COLOURS | {"range": (0.5, 2.0), "jitter": 1.0}, CAC | COLOURS | PAIRS),
        *(
            (f"{method}_{data}", CPS | WEAK, CPS | WEAK)
            for method in ("cps", "cutmix_cps")
            for data in ("voc", "cityscapes")
        ),
        *((f"mean_teacher_{data}", CPS | WEAK, CPS | PLAIN_STRONG) for data in ("voc", "cityscapes")),
        ("cutmix_seg_voc", TENTHS | WEAK, TENTHS | PLAIN_STRONG),
        ("cutmix_seg_cityscapes", HALF | WEAK, HALF | PLAIN_STRONG),
        *(
            (f"{method}_{data}", OWN | WEAK, OWN | STRONG)
            for method in ("fixmatch", "unimatch", "unimatch_v2")
            for data in ("voc", "cityscapes")
        ),
        *((f"{method}_folder", FOLDER | WEAK, FOLDER | WEAK) for method in ("cps", "cutmix_cps")),
        *((f"{method}_folder", FOLDER | WEAK, FOLDER | PLAIN_STRONG) for method in ("mean_teacher", "cutmix_seg")),
        *((f"{method}_folder", FOLDER | WEAK, FOLDER | STRONG) for method in ("fixmatch", "unimatch", "unimatch_v2")),
        ("cac_folder", FOLDER | WEAK, FOLDER | COLOURS | PAIRS | {"range": (0.8, 1.5)}),
        *((f"{method}_shapes", SHAPES | WEAK, SHAPES | WEAK) for method in ("cps", "cutmix_cps")),
        *(
            (f"{method}_shapes", SHAPES | WEAK, OF_SHAPES)
            for method in ("cac", "mean_teacher", "cutmix_seg", "fixmatch", "unimatch", "unimatch_v2")
        ),
    ],
)
def test_windows_are_cut_and_coloured_by_the_numbers_that_are_documented(name, labeled, unlabeled):
    recipe = load_recipe(name)
    for augmentation, numbers in ((recipe.labeled, labeled), (recipe.unlabeled, unlabeled)):
        assert {field: getattr(augmentation, field) for field in numbers} == numbers


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cps", {"weight": 1.5}),
        ("cutmix_cps", {"weight": 1.0}),
        ("mean_teacher", {"weight": 20.0, "ema": 0.98, "ema_rule": "ramp", "ema_buffers": "averaged"}),
        ("cutmix_seg", {"weight": 5.0, "ema": 0.98, "ema_rule": "ramp"}),
        (
            "fixmatch",
            {"labels": "teacher", "ema": 0.98, "threshold": 0.8, "supervised_weight": 1.0, "strong_weight": 1.0},
        ),
        (
            "unimatch",
            {"labels": "teacher", "ema": 0.98, "threshold": 0.8, "supervised_weight": 1.0, "strong_weight": 0.5}
            | {"perturbed_weight": 0.5},
        ),
        ("unimatch_v2", {"ema": 0.98, "threshold": 0.8, "supervised_weight": 1.0, "strong_weight": 1.0}),
    ],
)
def test_settings_on_own_images_are_those_of_the_docs(name, settings):
    """docs/methods.md, on own images; a teacher there follows by the ramp."""
    recipe = load_recipe(f"{name}_folder")
    assert {field: getattr(recipe.method, field) for field in settings} == settings
    assert recipe.method.ramp == 0.5
    assert getattr(recipe.method, "ema_rule", "ramp") == "ramp"
    if name != "unimatch_v2":
        assert (recipe.optimizer, recipe.lr, recipe.backbone_lr, recipe.weight_decay) == ("adamw", 3e-3, 0.3, 0.01)
    shapes = load_recipe(f"{name}_shapes")
    assert (shapes.optimizer, shapes.lr, shapes.backbone_lr, shapes.weight_decay) == ("sgd", 0.05, 0.2, 1e-4)


def test_networks_are_judged_by_the_protocols_of_the_docs():
    protocols = {name: load_recipe(name).evaluation.protocol for name in recipes()}
    sliding = {f"{method}_{data}" for method in ("cps", "cutmix_cps", "mean_teacher") for data in ("voc", "cityscapes")}
    sliding |= {"fixmatch_cityscapes", "unimatch_cityscapes", "u2pl_cityscapes"}
    published = {f"unimatch_v2_{data}": "dino-whole" for data in ("voc", "ade20k", "coco")}
    published["unimatch_v2_cityscapes"] = "unimatch2-slide"
    assert protocols == {name: "slide" if name in sliding else published.get(name, "whole") for name in recipes()}


@pytest.mark.parametrize("method", ["cps", "cutmix_cps", "mean_teacher"])
def test_ohem_of_cps_s_data_keeps_as_many_pixels(method):
    recipe = load_recipe(f"{method}_cityscapes")
    assert round(recipe.method.ohem * recipe.crop**2) == 50_000
