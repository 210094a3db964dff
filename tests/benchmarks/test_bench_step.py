"""The published way computes what our methods do, and the comparison prints what it promises."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import bench_step
from published_way import METHODS, as_published
from published_way.boxes import box_masks, half_box, half_or_no_box, no_box, tried_box
from published_way.images import Images, LabeledImages, Pairs, WeakStrong
from semiseg.engine.device import Precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.step import Step
from semiseg.pipelines import batch as batches
from semiseg.pipelines.batch import Batch, Labeled, Mixed, Pair, Plain
from semiseg.pipelines.datasets import find_dataset, prepare
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.views import Augmentation, ViewSpec
from ways import voc_recipe

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_step.py"
CROP = 32
PATCHES = 28
"""Crop of DINOv2, which takes multiples of 14."""


def crop_of(name: str) -> int:
    return PATCHES if name == "unimatch_v2" else CROP


def small(name: str):
    """Of a network that is sure of a part of the pixels. With a smaller eps AdamW makes steps of what is nothing but
    rounding."""
    backbone = "dinov2_small" if name == "unimatch_v2" else "resnet18"
    recipe = voc_recipe(name, Path("voc"), "cpu", 1, backbone=backbone, crop=crop_of(name), batch=2)
    if name in ("fixmatch", "unimatch", "cutmix_seg", "unimatch_v2"):
        recipe.method.threshold = 0.42 if name == "unimatch_v2" else 0.6
    if name == "u2pl":
        recipe.method.anchor_threshold = 0.35
    return recipe.replace(head_width=16, eps=1e-3)


def batch_of(name: str) -> Batch:
    """As our loader gives it."""
    generator, crop = torch.Generator().manual_seed(0), crop_of(name)

    def images():
        return torch.randn(2, 3, crop, crop, generator=generator)

    x, target = images(), torch.randint(0, 3, (2, crop, crop), generator=generator)
    target[:, :4] = 255
    labeled = Labeled(x, target.to(torch.uint8))
    if name == "supervised":
        return Batch(labeled)
    u, v = images(), images()
    if name in ("fixmatch", "unimatch", "unimatch_v2", "mean_teacher", "cutmix_seg", "u2pl"):
        return Batch(labeled, weak_strong(name, u, v, images))
    if name == "cps":
        return Batch(labeled, Plain(u))
    if name == "cutmix_cps":
        boxes = torch.tensor([[[0, 0, 16, 16], [8, 8, 24, 30], [1, 2, 3, 4]]] * 2, dtype=torch.int32)
        return Batch(labeled, Mixed(u, v, boxes))
    corner1, corner2 = torch.tensor([[0, 8], [0, 0]]), torch.tensor([[8, 0], [0, 0]])
    extent, flips = torch.tensor([[24, 24], [32, 16]]), torch.tensor([[True, False], [False, True]])
    return Batch(labeled, Pair(u, v, corner1.int(), corner2.int(), extent.int(), flips[:, 0], flips[:, 1]))


def weak_strong(name: str, u, v, images) -> batches.WeakStrong:
    """UniMatch's partners are windows of their own, CutMix-Seg's, U2PL's and UniMatch V2's those of another image; Mean
    Teacher has none."""
    other, crop = [1, 0], crop_of(name)
    own = {"mean_teacher": [0, 1], "cutmix_seg": other, "u2pl": other, "unimatch_v2": other}.get(name)
    partner = torch.tensor(own or [2, 3])
    boxes = torch.tensor([[[[4, 6, 20, 28]], [[0, 0, 0, 0]]], [[[0, 0, 9, 9]], [[16, 3, 28, 28]]]], dtype=torch.int32)
    valid = torch.tensor([[0, 0, crop, crop], [0, 4, 25, crop], [0, 0, 20, 28], [0, 0, crop, crop]], dtype=torch.int32)

    def windows():
        return images() if own else torch.cat([images(), images()])

    weak, strong = u if own else torch.cat([u, v]), (windows(), windows())
    views = 2 if name in ("unimatch", "unimatch_v2") else 1
    boxes = torch.zeros_like(boxes) if name == "mean_teacher" else boxes
    return batches.WeakStrong(weak, strong[:views], boxes[:views], partner, valid[: len(weak)])


@torch.no_grad()
def stretch(network: torch.nn.Module) -> None:
    """A decoder without normalisations, as it begins, says the same of every pixel."""
    for weight in (*network.decoder.parameters(), *network.classifier.parameters()):
        if weight.ndim == 4:
            weight.mul_(2)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_the_published_way_is_a_step_of_ours(name):
    torch.manual_seed(0)
    recipe = small(name)
    theirs = METHODS[name](recipe, 3)
    if name == "unimatch_v2":
        stretch(theirs.student)
        theirs.teacher.load_state_dict(theirs.student.state_dict())
    ours = build_method(recipe, 3).train()
    for key, network in ours.networks().items():
        network.load_state_dict(theirs.networks()[key].state_dict())
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = batch_of(name)
    step = Step(recipe, ours, Precision("fp32", torch.device("cpu")))
    torch.manual_seed(0)
    losses = step(batch, 0)
    torch.manual_seed(0)
    expected = theirs.step(*as_published(batch))
    assert min(expected.values()) > 0
    assert {key: float(loss) for key, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    pairs = [(network, theirs.networks()[key]) for key, network in ours.networks().items()]
    if hasattr(theirs, "teacher"):
        pairs.append((ours.teacher.network, theirs.teacher))
    for own, other in pairs:
        for (key, one), two in zip(own.state_dict().items(), other.state_dict().values(), strict=True):
            if one.is_floating_point():
                torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    if name == "u2pl":  # whose features, of a network that has not learnt, are too much alike to show in a loss
        assert ours.bank.held.tolist() == [len(keys) for keys in theirs.bank]
        for ring, keys in zip(ours.bank.features, theirs.bank):
            torch.testing.assert_close(ring[: len(keys)].float(), F.normalize(keys, dim=1), rtol=1e-3, atol=1e-5)


def test_windows_of_the_published_way_fit_each_other(voc_root):
    random.seed(0)
    records = list(prepare(find_dataset("voc", voc_root())).records.values())
    masked = [record for record in records if record.mask]
    image, target = LabeledImages(masked, Augmentation(), CROP)[0]
    assert (image.shape, target.shape, target.dtype) == ((3, CROP, CROP), (CROP, CROP), torch.int64)
    assert Images(records, Augmentation(scale="factors"), CROP)[0].shape == (3, CROP, CROP)
    balanced = Images(records, Augmentation(scale="own", range=(0.5, 2.0), even_odds=True), CROP)
    sides = [max(balanced.size(Image.new("RGB", (100, 80)))) for _ in range(400)]
    assert 50 <= min(sides) < max(sides) <= 200
    assert np.mean(np.less_equal(sides, 100)) == pytest.approx(0.5, abs=0.1)
    views, low, high, flips = Pairs(records, Augmentation(range=(0.8, 2.0)), CROP)[0]
    assert (views.shape, flips.shape) == ((2, 3, CROP, CROP), (2,))
    assert torch.equal(high[0] - low[0], high[1] - low[1])
    assert (high > low).all()
    assert not (low % 8).any()
    colours = Augmentation(range=(0.5, 0.5), scale="own", fill="black", jitter=1.0, blur=1.0, sigma=(0.1, 2.0))
    weak, strong, shown, boxes = WeakStrong(records, colours, CROP, ViewSpec(strong=2))[0]
    assert (weak.shape, strong.shape) == ((3, CROP, CROP), (2, 3, CROP, CROP))
    assert (shown.shape, boxes.shape) == ((CROP, CROP), (2, CROP, CROP))
    assert shown.sum() == 20 * 28  # half of either side
    black = weak[:, ~shown]
    assert torch.equal(black, black[:, :1].expand_as(black))
    assert not torch.equal(strong[0], strong[1])


def test_boxes_cover_less_than_all():
    random.seed(0)
    masks = box_masks(50, (64, 64))
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert 0.1 < masks.mean() < 0.5
    assert no_box(64).sum() == 0
    assert half_box(64).mean() == pytest.approx(0.5, abs=0.03)
    halves = [half_or_no_box(64) for _ in range(400)]
    shares = [mask.mean() for mask in halves]
    assert np.mean(np.equal(shares, 0)) == pytest.approx(0.5, abs=0.1)
    assert all(share == 0 or share == pytest.approx(0.5, abs=0.01) for share in shares)
    assert {mask.any(0).sum() for mask in halves} <= {0, *range(33, 64)}
    shares = [tried_box(64).mean() for _ in range(400)]
    assert np.mean(np.equal(shares, 0)) == pytest.approx(0.5, abs=0.1)
    assert max(shares) <= 0.4
    assert np.mean(shares) == pytest.approx(0.105, abs=0.025)


def test_json_compares_the_two_ways(voc_root):
    arguments = ["--data", voc_root(), "--method", "cac", "--crop", 32, "--batch", 2, "--rounds", 1, "--steps", 1]
    command = [sys.executable, str(PROGRAM), *map(str, arguments), "--device", "cpu", "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ours"]["images_per_s"] > 0
    assert result["published_way"]["images_per_s"] > 0
    assert result["settings"]["method"] == "cac"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"rounds": 0}, "--rounds: must be at least 1, is 0"),
        ({"steps": -3}, "--steps: must be at least 1, is -3"),
        ({"results": Path("/dev/null/a.csv")}, "--results: /dev/null/a.csv cannot be added to"),
    ],
)
def test_wrong_numbers_and_files_are_told_before_anything_is_measured(tmp_path, flags, says):
    with pytest.raises(UsageError, match=says):
        bench_step.main(tmp_path, **flags)


def test_a_wrong_root_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run([sys.executable, str(PROGRAM), "--data", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
