"""Fidelity: the switches, the numbers on the mean gradient, and the table of their proofs in docs/fidelity.md."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from semiseg.engine.catalogue import find_recipe, load_recipe
from semiseg.engine.commands import train as command
from semiseg.engine.commands.main import main
from semiseg.engine.methods import METHODS
from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method
from semiseg.engine.training.trainer import Trainer
from semiseg.kernels import directional_contrast, upsample_cross_entropy
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import Augmentation, Sampling

ROOT = Path(__file__).parents[2]
PUBLISHED = [f"{method}_{layout}" for method in METHODS for layout in ("voc", "cityscapes")]
CLASSES = 3


@pytest.fixture
def dry_run(monkeypatch, capsys):
    """`dry_run("cps_voc", "--batch", 4)` -> what the command prints: a JSON document with --json, else text."""

    # Which takes most of the time of a dry run, and has tests of its own.
    monkeypatch.setattr(command, "forecast", lambda *arguments: "")

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", ["semiseg", "train", name, "--dry-run", *map(str, arguments)])
        main()
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in arguments else text

    return run


# Numbers on the mean gradient


@pytest.mark.parametrize(
    ("name", "processes", "lr", "decay"), [("cps_voc", 4, 4 * 0.0025, 1e-4), ("cps_cityscapes", 8, 0.02, 1e-4)]
)
def test_two_divisions_by_the_processes_are_another_lr_and_weight_decay(name, processes, lr, decay):
    """SGD with momentum at the script's (lr, wd) on g / W is that at (lr / W, W wd) on the mean gradient g."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(20, processes, 2, 5).double(), torch.randn(20, processes, 2, 3).double()
    start = torch.randn(3, 5).double()
    recipe = load_recipe(name)

    def train(lr: float, decay: float, divide: bool) -> torch.Tensor:
        weight = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([weight], lr, momentum=recipe.momentum, weight_decay=decay)
        for x, y in zip(inputs, targets):
            losses = [F.mse_loss(x[rank] @ weight.T, y[rank]) for rank in range(processes)]
            losses = [loss / processes for loss in losses] if divide else losses
            gradients = [torch.autograd.grad(loss, weight)[0] for loss in losses]
            weight.grad = torch.stack(gradients).mean(0)
            optimizer.step()
        return weight.detach()

    as_written = train(lr, decay, divide=True)
    torch.testing.assert_close(train(recipe.lr, recipe.weight_decay, divide=False), as_written, rtol=1e-12, atol=1e-14)
    naive = train(lr, decay, divide=False)
    assert (naive - as_written).norm() > 0.1 * (as_written - start).norm()


def test_means_of_processes_differ_from_the_mean_where_void_pixels_do(tiny):
    one, two = (made(tiny("supervised", batch=4, emulate_processes=parts)) for parts in (1, 2))
    logits, target = torch.randn(4, CLASSES, 8, 8), torch.randint(0, CLASSES, (4, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(two.supervised(logits, target), one.supervised(logits, target))
    target[:2, 4:] = 255
    parts = [upsample_cross_entropy(logits[n : n + 2], target[n : n + 2]) for n in (0, 2)]
    torch.testing.assert_close(two.supervised(logits, target), torch.stack(parts).mean())
    assert abs(two.supervised(logits, target) - one.supervised(logits, target)) > 1e-3


@pytest.mark.parametrize(
    ("name", "steps", "lr", "backbone_lr", "decay", "weights"),
    [
        ("cps_voc", 39_338, 0.0025, 0.0025, 4e-4, {"cps": 1.5}),
        ("cps_cityscapes", 44_525, 0.0025, 0.0025, 8e-4, {"cps": 6.0}),
        ("cutmix_cps_voc", 39_338, 0.0025, 0.0025, 4e-4, {"cps": 1.0}),
        ("cutmix_cps_cityscapes", 44_525, 0.0025, 0.0025, 8e-4, {"cps": 5.0}),
        ("cac_voc", 92_560, 0.01, 0.001, 1e-4, {"contrastive": 0.1}),
        ("cac_cityscapes", 92_560, 0.1, 0.01, 1e-4, {"contrastive": 0.1}),
        ("supervised_voc", 92_560, 0.01, 0.001, 1e-4, {}),
        ("supervised_cityscapes", 92_560, 0.1, 0.01, 1e-4, {}),
    ],
)
def test_dry_run_states_the_published_numbers_without_data(dry_run, name, steps, lr, backbone_lr, decay, weights):
    document = dry_run(name, "--json")
    values, published = document["effective"], document["published"]
    assert published | {"schedule": values["schedule"]} == values
    assert published["schedule"] == load_recipe(name).as_published().schedule
    assert values["steps"] == steps
    assert values["loss_weights"] == {"supervised": 1.0} | weights
    assert values["batch"] == {"labeled": 8, "unlabeled": 8 if weights else 0}
    for group in values["groups"]:
        assert group["lr"] == pytest.approx(backbone_lr if "backbone" in group["name"] else lr)
        assert group["weight_decay"] == (0 if group["name"].endswith("rest") else decay)
    assert ("rest" in {group["name"].rpartition(".")[2] for group in values["groups"]}) == ("cps" in weights)


def test_lr_follows_the_batch_unless_told_otherwise(dry_run):
    def lr(*arguments) -> float:
        groups = dry_run("cac_voc", "--json", *arguments)["effective"]["groups"]
        return next(group["lr"] for group in groups if group["name"] == "network.head")

    assert lr("--batch", 4) == pytest.approx(0.005)
    assert lr("--batch", 16, "--fidelity", "published") == pytest.approx(0.02)
    assert lr("--batch", 4, "--scale-lr", "none") == lr() == 0.01
    assert lr("--batch", 4, "--lr", 0.02) == 0.02
    assert lr("--batch", 4, "--lr=0.01") == 0.01
    assert dry_run("cac_voc", "--json", "--batch", 4)["published"]["groups"][1]["lr"] == 0.01
    assert "lr scaled alike to 0.005" in dry_run("cac_voc", "--batch", 4)
    assert "not scaled" in dry_run("cac_voc", "--batch", 4, "--lr", 0.01)
    assert "batch: " not in dry_run("cac_voc")

    assert load_recipe("cac_voc", batch=4).lr == pytest.approx(0.005)
    assert load_recipe("cac_voc", batch=4, scale_lr="none").lr == load_recipe("cac_voc", batch=4, lr=0.01).lr == 0.01
    assert load_recipe("cac_voc").replace(batch=4).lr == 0.01
    for method in METHODS:  # whose lr is AdamW's and nobody's published one
        assert load_recipe(f"{method}_folder", batch=4).lr == load_recipe(f"{method}_folder").lr


def test_a_dry_run_shows_every_setting_beside_the_published_one_and_marks_differences(dry_run):
    def rows(*arguments) -> dict[str, list[str]]:
        lines = dry_run("cutmix_cps_voc", *arguments).splitlines()
        return {parts[0]: parts[1:] for parts in (re.split(r"  +", line.strip()) for line in lines)}

    shown = rows("--method.weight", 2, "--labeled.flip", 0)
    assert shown["weight of cps loss"] == ["2 *", "1"]
    assert shown["sampling.cutmix_partner"] == ["other *", "same"]
    assert shown["network"] == ["cac *", "cps"]
    assert shown["labelled windows"] == ["scales 0.5 0.75 1 1.5 1.75 2 *", "scales 0.5 0.75 1 1.5 1.75 2, flip 0.5"]
    assert shown["branch1.backbone.weights lr"] == ["0.0025", "0.0025"]
    even = rows("--labeled.scale", "own", "--labeled.even-odds")
    assert even["labelled windows"][0] == "own long side x 0.5-1-2, flip 0.5 *"
    published = rows("--fidelity", "published")
    assert published["network"] == ["cps", "cps"]
    assert not [name for name, values in published.items() if values and values[0].endswith("*")]


# Switches


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_every_switch_and_what_the_command_line_says_stays(dry_run, monkeypatch, name):
    default, published = load_recipe(name), load_recipe(name).as_published()
    for path, value in default.switches().items():
        assert default.get(path) != value
        assert published.get(path) == value
    published.check()
    assert Recipe.from_dict(published.to_dict()) == published
    text = dry_run(name, "--fidelity", "published", "--network", default.network, "--sampling.shared-draws", 1)
    assert ("cac *" in text) == (published.network != default.network)
    assert ("1 *" in text) == (published.sampling.shared_draws != 1)


@pytest.mark.parametrize(
    "name", ["cac_folder", "cutmix_cps_folder", "unimatch_folder", "cac_shapes", "unimatch_v2_shapes"]
)
def test_published_normalises_batches_apart_on_folders_and_shapes_too(dry_run, name):
    assert load_recipe(name).batch_statistics == "joint"
    for words, said in (((), "joint"), (("--fidelity", "published"), "separate")):
        assert re.search(rf"^ *batch_statistics +{said}", dry_run(name, *words), re.MULTILINE)
    assert load_recipe(name).as_published().batch_statistics == "separate"


def test_published_in_python_needs_its_switches(tmp_path):
    recipe = load_recipe("cps_voc").replace(data=tmp_path)
    with pytest.raises(UsageError, match="as_published"):
        replace(recipe, fidelity="published").check()
    recipe.as_published().check()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unlabeled": Augmentation(padding="centre")}, "--unlabeled.padding"),
        ({"unlabeled": Augmentation(crop_off_by_one=True)}, "--unlabeled.crop-off-by-one"),
        ({"sampling": Sampling(epoch_steps=0)}, "--sampling.epoch-steps"),
        ({"sampling": Sampling(shared_draws=0)}, "--sampling.shared-draws"),
        ({"emulate_processes": 3}, "--emulate-processes"),
    ],
)
def test_switches_that_make_no_sense_are_refused(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        load_recipe("cac_voc").replace(data=tmp_path, **changes).check()


def test_the_sawtooth_is_poly_at_the_steps_it_counts_and_jumps_at_others():
    poly = load_recipe("supervised_voc")
    sawtooth = replace(poly, schedule="sawtooth")
    for step in (0, 1, 1156, 1157, 50_000, 92_559, 92_560):
        assert sawtooth.lr_factor(step) == pytest.approx(poly.lr_factor(step), abs=1e-9)
    # 80 epochs of 165 steps, as the program makes them: behind each step it sets the next one's rate, by the epoch that
    # this one belongs to, from 0, and a counter that begins anew behind 1157.
    short = replace(sawtooth, steps=80 * 165)
    expected, counter = [1.0], 0
    for epoch in range(80):
        for _ in range(165):
            counter = counter % 1157 + 1
            expected.append((1 - (epoch * 1157 + counter) / 92_560) ** 0.9)
    factors = [short.lr_factor(step) for step in range(short.steps)]
    assert factors == pytest.approx(expected[:-1])
    rises = [step for step in range(1, short.steps) if factors[step] > factors[step - 1]]
    assert rises
    assert all(step % 1157 == 1 for step in rises)
    assert replace(short, schedule="poly").lr_factor(6600) == pytest.approx(0.5**0.9)


def test_defaults_follow_the_split_and_the_backbone(dry_run):
    """The published row of what is asked for, not the 1/8 and ResNet-50 row with another split."""
    assert dry_run("cps_voc", "--json", "--split", "voc-cps-1/4")["published"]["steps"] == 39_680
    assert dry_run("cps_voc", "--json", "--split", "voc-cps-1/4", "--steps", 5)["effective"]["steps"] == 5
    assert re.search(r"method.bank_steps +3 +3 *\n", dry_run("cac_voc", "--backbone", "resnet101"))
    assert re.search(
        r"method.bank_steps +1 \* +3 *\n", dry_run("cac_voc", "--backbone=resnet101", "--method.bank-steps=1")
    )


@pytest.mark.parametrize("name", METHODS)
def test_published_trains(tiny, voc_root, name):
    batch = 8 if name == "u2pl" else 4  # which mixes images of one process of four
    recipe = tiny(name, data=voc_root(), batch=batch).as_published()
    trainer = Trainer(recipe)
    (planner,) = trainer.loader.planners
    drawing = planner.drawing
    assert (drawing.sampling, drawing.labeled, drawing.unlabeled) == (recipe.sampling, recipe.labeled, recipe.unlabeled)
    result = trainer.train()
    assert result.steps == 3
    assert Recipe.from_dict(json.loads((result.out / "recipe.json").read_text())) == recipe


def made(recipe: Recipe):
    torch.manual_seed(0)
    return build_method(recipe, CLASSES).train()


def test_one_mean_is_half_of_the_paper_s_sum_of_means(tiny, random_batch):
    recipe, batch = tiny("cps", network="cps"), random_batch("plain")
    joint = made(recipe).losses(batch, 0.5)
    separate = made(replace(recipe, method=replace(recipe.method, mean="separate"))).losses(batch, 0.5)
    torch.testing.assert_close(separate["cps"], 2 * joint["cps"])
    torch.testing.assert_close(separate["supervised"], joint["supervised"])
    # At half the weight the two are one method, gradients included; on batches of unequal size they are not.
    halved = made(replace(recipe, method=replace(recipe.method, mean="separate", weight=recipe.method.weight / 2)))
    torch.testing.assert_close(halved.losses(batch, 0.5)["loss"], joint["loss"])
    other = replace(batch, unlabeled=replace(batch.unlabeled, image=torch.randn(6, 3, 32, 32)))
    assert abs(halved.losses(other, 0.5)["loss"] - made(recipe).losses(other, 0.5)["loss"]) > 1e-3


def test_pseudo_labels_of_cac_carry_dropout_or_come_from_evaluation(tiny, random_batch):
    recipe, view = tiny("cac"), random_batch("pair").unlabeled.image1

    def twice(mode: str):
        method = made(replace(recipe, method=replace(recipe.method, pseudo_labels=mode)))
        first, second = (method.describe(view, method.network.features(view)) for _ in range(2))
        return method, first, second

    _, (_, _, first), (_, _, second) = twice("training")
    assert (first - second).abs().max() > 1e-3  # dropout

    method, (feature, label, confidence), _ = twice("evaluation")
    assert method.network.training
    twin = made(replace(recipe, method=replace(recipe.method, pseudo_labels="training")))
    # What is contrasted is the same.
    torch.testing.assert_close(feature, twin.describe(view, twin.network.features(view))[0])
    twin.network.eval()
    features = twin.network.features(view)
    logits = twin.network.classify(F.avg_pool2d(features, 2))
    expected = logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2).max(1)
    torch.testing.assert_close(confidence, expected.values, atol=1e-5, rtol=1e-4)
    assert (label == expected.indices).all()


def test_the_bank_holds_as_many_steps_as_published():
    cac_voc, cac_cityscapes = find_recipe("cac_voc"), find_recipe("cac_cityscapes")
    assert cac_voc().method.bank_steps == 2
    assert cac_voc(backbone="resnet101").method.bank_steps == 3
    assert cac_cityscapes().method.bank_steps == cac_cityscapes(backbone="resnet101").method.bank_steps == 1
    bank = build_method(replace(cac_voc(), backbone="resnet18"), 21).bank
    assert bank.features.shape == (2, 25_600, 128)  # 2 views of 8 images of 40 x 40 positions


def contrast(negatives: int = 40, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    features = [F.normalize(torch.randn(n, 16, dtype=dtype), dim=1) for n in (12, 12, negatives)]
    labels = [torch.randint(0, CLASSES, (n,)) for n in (12, 12, negatives)]
    confidences = [torch.rand(12, dtype=dtype) for _ in range(2)]
    return features, labels, confidences


def test_the_order_of_negatives_does_not_matter():
    (f1, f2, n), (l1, l2, ln), (c1, c2) = contrast()
    order = torch.randperm(len(n))
    ours = directional_contrast(f1, f2, l1, l2, c1, c2, n, ln, threshold=0.3)
    shuffled = directional_contrast(f1, f2, l1, l2, c1, c2, n[order], ln[order], threshold=0.3)
    assert ours[0] > 0
    torch.testing.assert_close(shuffled, ours)


def test_the_shift_by_a_chunk_s_maximum_does_not_matter():
    """As the program computes it: the maximum is over the first negatives only, those of the anchor's class too."""
    (f1, f2, n), (l1, l2, ln), (c1, c2) = contrast()
    positive, scores = (f1 * f2).sum(1) / 0.1, f1 @ n.T / 0.1
    shift = torch.maximum(positive, scores[:, :8].max(1).values)
    foreign = (torch.exp(scores - shift[:, None]) * (ln != l1[:, None])).sum(1)
    probability = torch.exp(positive - shift) / (torch.exp(positive - shift) + foreign + 1e-8)
    active = ((c2 > 0.3) & (c1 < c2)).double()
    expected = (active * -torch.log(probability + 1e-8)).sum() / (active.sum() + 1e-12)
    ours, _ = directional_contrast(f1, f2, l1, l2, c1, c2, n, ln, threshold=0.3)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=0)


# The table


def table() -> list[list[str]]:
    """The cells of docs/fidelity.md's rows: trap, field, default, published, proof."""
    lines = (ROOT / "docs/fidelity.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if not set(row[0]) <= set("-: ") and row[-1] != "proof"]


def shown(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def switch_fields() -> dict[str, tuple[object, set]]:
    """Every switch: its default, and its values in the published programs."""
    fields: dict[str, tuple[object, set]] = {}
    for name in PUBLISHED:
        recipe = load_recipe(name)
        for path, value in recipe.switches().items():
            fields.setdefault(path, (recipe.get(path), set()))[1].add(value)
    fields["method.mean"] = ("joint", {"joint"})
    fields["method.pseudo_labels"] = ("training", {"training"})
    return fields


def test_every_row_names_tests_that_exist():
    rows = table()
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[-1])
        assert named, row
        for path, function in named:
            tree = ast.parse((ROOT / path).read_text())
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, function)


def test_every_switch_is_in_the_table_with_its_default_and_its_published_value():
    rows, fields = table(), switch_fields()
    assert {f"sampling.{field.name}" for field in dataclasses.fields(Sampling)} <= fields.keys()
    for path, (default, published) in fields.items():
        (row,) = [row for row in rows if f"`{path}`" in row[1]]
        if default is not None:
            assert shown(default) in row[2], path
        for value in published:
            assert shown(value) in row[3], path


def test_the_table_names_no_field_that_does_not_exist():
    recipes = [load_recipe(name) for name in PUBLISHED]
    for row in table():
        for path in re.findall(r"`([a-z_.]+)`", row[1]):
            assert any(_has(recipe, path) or hasattr(recipe.runtime, path) for recipe in recipes), path


def _has(recipe: Recipe, path: str) -> bool:
    try:
        recipe.get(path)
    except AttributeError:
        return False
    return True


PROCESSES = {
    **{name: {"voc": 2, "cityscapes": 4} for name in ("supervised", "cac")},
    **{name: {"voc": 4, "cityscapes": 8} for name in ("cps", "cutmix_cps", "mean_teacher", "u2pl")},
    "cutmix_seg": {"voc": 1, "cityscapes": 1},
    **{name: {"voc": 4, "cityscapes": 4} for name in ("fixmatch", "unimatch", "unimatch_v2")},
}


def test_parts_of_a_batch_are_as_many_as_the_published_runs_had_processes():
    for method, of_layouts in PROCESSES.items():
        for layout, processes in of_layouts.items():
            recipe = load_recipe(f"{method}_{layout}").as_published()
            assert recipe.emulate_processes == processes, recipe.name
            assert recipe.sampling.shared_draws == (processes if method in ("supervised", "cac") else 1), recipe.name


def test_published_files_are_seen_in_windows_as_their_recipes_train_on():
    for program in PROGRAMS.values():
        for layout, crop in program.crops.items():
            assert load_recipe(f"{program.name}_{layout}").crop == crop, program.name


PROTOCOLS = {
    **{name: ("cac-whole", "cac-whole") for name in ("supervised", "cac")},
    **{name: ("cps-slide", "cps-slide") for name in ("cps", "cutmix_cps", "mean_teacher")},
    "cutmix_seg": ("unimatch-whole", "unimatch-whole"),
    **{name: ("unimatch-whole", "unimatch-slide") for name in ("fixmatch", "unimatch")},
    "unimatch_v2": ("dino-whole", "unimatch2-slide"),
    "u2pl": ("unimatch-whole", "slide"),
}


@pytest.mark.parametrize("method", METHODS)
def test_published_runs_are_judged_as_by_their_programs(method):
    layouts = ("voc", "cityscapes")
    published = (load_recipe(f"{method}_{layout}").as_published() for layout in layouts)
    assert tuple(recipe.evaluation.protocol for recipe in published) == PROTOCOLS[method]


def test_published_epochs_are_filled_as_by_their_programs():
    orders = {name: load_recipe(f"{name}_voc").as_published().sampling.labeled_order for name in METHODS}
    of_programs = dict.fromkeys(("supervised", "cac", "cutmix_seg"), "passes")
    of_programs |= dict.fromkeys(("cps", "cutmix_cps", "mean_teacher"), "redrawn")
    of_programs |= {"fixmatch": "cut", "unimatch": "cut", "unimatch_v2": "repeated", "u2pl": "cut"}
    assert orders == of_programs
