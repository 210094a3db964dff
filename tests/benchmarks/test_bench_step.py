"""The published way computes what our methods do, and the comparison prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from published_way import METHODS, Images, LabeledImages, Pairs, PublishedWay, as_published, box_masks
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.device import Precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.step import Step
from semiseg.pipelines.batch import Batch, Labeled, Mixed, Pair, Plain
from semiseg.pipelines.datasets import find_dataset, prepare
from semiseg.pipelines.views import Augmentation

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_step.py"
CROP = 32


def small(name: str):
    recipe = load_recipe(f"{name}_voc").replace(backbone="resnet18", head_width=16, weights="none", crop=CROP, batch=2)
    if name == "cac":
        recipe.method.start, recipe.method.threshold = 0.0, 0.0
    return recipe


def batch_of(name: str) -> Batch:
    """As our loader gives it."""
    generator = torch.Generator().manual_seed(0)

    def images():
        return torch.randn(2, 3, CROP, CROP, generator=generator)

    x, target = images(), torch.randint(0, 3, (2, CROP, CROP), generator=generator)
    target[:, :4] = 255
    labeled = Labeled(x, target.to(torch.uint8))
    if name == "supervised":
        return Batch(labeled)
    u, v = images(), images()
    if name == "cps":
        return Batch(labeled, Plain(u))
    if name == "cutmix_cps":
        boxes = torch.tensor([[[0, 0, 16, 16], [8, 8, 24, 30], [1, 2, 3, 4]]] * 2, dtype=torch.int32)
        return Batch(labeled, Mixed(u, v, boxes))
    corner1, corner2 = torch.tensor([[0, 8], [0, 0]]), torch.tensor([[8, 0], [0, 0]])
    extent, flips = torch.tensor([[24, 24], [32, 16]]), torch.tensor([[True, False], [False, True]])
    return Batch(labeled, Pair(u, v, corner1.int(), corner2.int(), extent.int(), flips[:, 0], flips[:, 1]))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_the_published_way_is_a_step_of_ours(name):
    recipe = small(name)
    theirs = PublishedWay(recipe, 3)
    ours = build_method(recipe, 3).train()
    for key, network in ours.networks().items():
        network.load_state_dict(theirs.networks()[key].state_dict())
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = batch_of(name)
    losses = Step(recipe, ours, Precision("fp32", torch.device("cpu")))(batch, 0)
    expected = theirs.step(*as_published(batch))
    assert {key: float(loss) for key, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    for key, network in ours.networks().items():
        for one, other in zip(network.parameters(), theirs.networks()[key].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_windows_of_the_published_way_fit_each_other(voc_root):
    records = list(prepare(find_dataset("voc", voc_root())).records.values())
    masked = [record for record in records if record.mask]
    image, target = LabeledImages(masked, Augmentation(), CROP)[0]
    assert (image.shape, target.shape, target.dtype) == ((3, CROP, CROP), (CROP, CROP), torch.int64)
    assert Images(records, Augmentation(scale="factors"), CROP)[0].shape == (3, CROP, CROP)
    views, low, high, flips = Pairs(records, Augmentation(range=(0.8, 2.0)), CROP)[0]
    assert (views.shape, flips.shape) == ((2, 3, CROP, CROP), (2,))
    assert torch.equal(high[0] - low[0], high[1] - low[1])
    assert (high > low).all()
    assert not (low % 8).any()


def test_boxes_cover_less_than_all():
    masks = box_masks(50, (64, 64))
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert 0.1 < masks.mean() < 0.5


def test_json_compares_the_two_ways(voc_root):
    arguments = ["--data", voc_root(), "--method", "cac", "--crop", 32, "--batch", 2, "--rounds", 1, "--steps", 1]
    command = [sys.executable, str(PROGRAM), *map(str, arguments), "--device", "cpu", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ours"]["images_per_s"] > 0
    assert result["published_way"]["images_per_s"] > 0
    assert result["settings"]["method"] == "cac"


def test_a_wrong_root_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run([sys.executable, str(PROGRAM), "--data", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
