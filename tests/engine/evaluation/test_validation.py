"""Evaluation: scores against torchmetrics, several protocols and several processes at once, selection, the command."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

import protocols_by_hand as by_hand
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.commands.main import main
from semiseg.engine.device import Precision
from semiseg.engine.evaluation.inference import segment
from semiseg.engine.evaluation.validation import batches, evaluate_each, own_share
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation
from semiseg.pipelines import watch
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.decode import COLOUR, LABEL, read

CLASSES = ("ground", "car", "tree", "sky")
CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """Five images of two sizes, with void pixels; no truth holds the last class."""
    rng = np.random.default_rng(0)
    made = []
    for number, (height, width) in enumerate([(40, 56), (40, 56), (33, 47), (40, 56), (33, 47)]):
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.choice([0, 1, 2, 255], (height, width)).astype(np.uint8)).save(mask)
        made.append(Record(f"{number}", image, mask, height, width))
    return made


@pytest.fixture
def network():
    """It never predicts the last class."""
    torch.manual_seed(0)
    network = build_network("cps", "resnet18", len(CLASSES), head_width=16).train()
    with torch.no_grad():
        network.classifier.bias[-1] = -1000
    return network


@pytest.mark.parametrize("protocol", ["whole", "cac-whole", "slide", "cps-slide"])
def test_scores_agree_with_torchmetrics(records, network, protocol):
    judged = Evaluation(protocol=protocol, window=32, batch=2).resolve(32)
    (scores,) = evaluate_each(network, records, CLASSES, [judged], precision=FP32)
    assert network.training
    macro, each = (MulticlassJaccardIndex(len(CLASSES), ignore_index=255, average=how) for how in ("macro", "none"))
    right = valid = 0
    for record in records:
        predicted = segment(network, read(record.image, COLOUR), judged, FP32).labels
        truth = read(record.mask, LABEL)
        for metric in (macro, each):
            metric.update(torch.from_numpy(predicted)[None], torch.from_numpy(truth).long()[None])
        right, valid = right + (predicted == truth).sum(), valid + (truth != 255).sum()
    np.testing.assert_allclose(np.nan_to_num(list(scores.iou.values())), each.compute(), atol=1e-6)
    wanted = each.compute().mean() if protocol == "cac-whole" else macro.compute()
    assert scores.miou == pytest.approx(float(wanted), abs=1e-6)
    assert scores.pixel_accuracy == pytest.approx(right / valid)


def test_conventions_follow_the_protocol_unless_they_are_given(records, network):
    evaluations = [Evaluation(protocol="cac-whole"), Evaluation(), Evaluation(absent="zero", background=False)]
    protocols = [evaluation.resolve(32) for evaluation in evaluations]
    published, own, given = evaluate_each(network, records, CLASSES, protocols, precision=FP32)
    np.testing.assert_array_equal(published.confusion, own.confusion)
    first, *others, _ = own.iou.values()
    assert published.miou == pytest.approx((first + sum(others)) / 4)
    assert own.miou == pytest.approx((first + sum(others)) / 3)
    assert given.miou == pytest.approx(sum(others) / 3)


def test_several_protocols_take_one_pass_and_score_as_one_by_one(records, network, monkeypatch):
    seen = []
    monkeypatch.setattr(watch, "read", lambda path, *more, **named: seen.append(path) or read(path, *more, **named))
    evaluations = [Evaluation(protocol="cac-whole", batch=3), Evaluation(protocol="cps-slide", window=32, flip=True)]
    protocols = [evaluation.resolve(32) for evaluation in evaluations]
    together = evaluate_each(network, records, CLASSES, protocols, precision=FP32)
    assert len(seen) == len(set(seen)) == 2 * len(records)
    for protocol, scores in zip(protocols, together, strict=True):
        (alone,) = evaluate_each(network, records, CLASSES, [protocol], precision=FP32)
        np.testing.assert_array_equal(scores.confusion, alone.confusion)


@pytest.mark.parametrize(("name", "background"), [("whole", True), ("cac-whole", False), ("slide", True)])
def test_each_image_has_its_scores_beside_those_of_all(records, network, name, background):
    """By the definitions, over the classes that an image's mask or prediction holds, whatever the protocol says of
    others."""
    Image.new("L", (47, 33), 255).save(records[2].mask)
    protocol = Evaluation(protocol=name, window=32, batch=2, background=background).resolve(32)
    (alone,) = evaluate_each(network, records, CLASSES, [protocol], precision=FP32)
    (scores,) = evaluate_each(network, records, CLASSES, [protocol], precision=FP32, by_image=True)
    np.testing.assert_array_equal(scores.confusion, alone.confusion)
    assert alone.images == ()
    expected = {}
    for record in records:
        predicted = segment(network, read(record.image, COLOUR), protocol, FP32).labels
        truth = read(record.mask, LABEL)
        judged = truth != 255
        its = [(truth == index, (predicted == index) & judged) for index in range(0 if background else 1, 4)]
        shares = [(mask & found).sum() / (mask | found).sum() for mask, found in its if (mask | found).any()]
        right = (predicted == truth)[judged]
        means = [np.mean(of) if len(of) else math.nan for of in (shares, right)]
        expected[record.id] = (*means, judged.sum())
    assert {one.image: (one.miou, one.pixel_accuracy, one.pixels) for one in scores.images} == {
        name: pytest.approx(values, nan_ok=True) for name, values in expected.items()
    }
    *mious, void = (one.miou for one in scores.images)
    assert mious == sorted(mious)
    assert math.isnan(void)
    assert scores.images[-1].image == "2"


def test_images_of_equal_size_come_together(records, network):
    shapes = [tuple(images.shape) for _, images, _ in batches(network, records, 2, CPU)]
    assert sorted(shapes) == [(1, 3, 40, 56), (2, 3, 33, 47), (2, 3, 40, 56)]


def test_the_network_computes_in_the_precision_that_is_asked_for(records, network):
    seen = []
    network.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for name in ("fp32", "bf16"):
        evaluate_each(network, records[:1], CLASSES, [Evaluation().resolve(32)], precision=Precision(name, CPU))
    assert seen == [torch.float32, torch.bfloat16]


def test_cac_compares_scores_rounded_to_three_decimals():
    published, own = Evaluation(protocol="cac-whole").resolve(32), Evaluation().resolve(32)
    assert own.prefers(0.70049, 0.7004)
    assert not published.prefers(0.70049, 0.7004)
    assert published.prefers(0.7006, 0.7004)
    assert not published.prefers(0.7, 0.7)
    assert published.prefers(0.0, -math.inf)
    for protocol in (own, published):
        assert protocol.prefers(0.0, math.nan)
        assert not protocol.prefers(math.nan, 0.0)
        assert not protocol.prefers(math.nan, math.nan)


def test_the_command_scores_by_several_protocols(tiny, voc_root, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    classes = tuple(f"class {index}" for index in range(21))
    recipe = tiny("cac", data=voc_root(), evaluation=Evaluation())
    network = build_network("cac", "resnet18", len(classes), head_width=16)
    palette = tuple((index, index, index) for index in range(len(classes)))
    header = header_of(recipe, network, classes, palette, step=1, miou=0.5)
    save_network(tmp_path / "a.safetensors", network.state_dict(), header, recipe)

    def scores(*options: str) -> dict:
        command = ["semiseg", "evaluate", str(tmp_path / "a.safetensors"), "--device", "cpu", "--json", *options]
        monkeypatch.setattr(sys, "argv", command)
        main()
        return json.loads(capsys.readouterr().out)

    keys = {"miou", "mdice", "iou", "class_precision", "recall", "dice", "pixel_accuracy", "classes", "confusion"}
    keys |= {"protocol", "precision", "images"}
    several = scores("--protocol", "cac-whole", "cps-slide", "--scales", "0.5", "1", "--flip")
    assert several.keys() == keys | {"protocols"}
    assert several["protocol"] == "cac-whole, scales 0.5 1, flip"
    assert scores("--precision", "fp32")["precision"] == "fp32"
    assert scores("--precision", "bf16")["precision"] == "bf16"
    assert {name: one["protocol"] for name, one in several["protocols"].items()} == {
        "cac-whole": "cac-whole, scales 0.5 1, flip",
        "cps-slide": "cps-slide 32, scales 0.5 1, flip",
    }
    assert several["protocols"]["cac-whole"] == {key: several[key] for key in keys}

    one = scores("--protocol", "cac-whole", "--absent", "skip", "--no-background")
    assert one.keys() == keys
    assert one["protocol"] == "cac-whole, absent classes skip, without background"
    assert one["miou"] == pytest.approx(np.mean([iou for iou in list(one["iou"].values())[1:] if iou is not None]))


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,), (math.nan, 1.0), (1.0, math.inf)])
def test_scales_that_make_no_sense_are_refused(scales):
    (fault,) = Evaluation(scales=scales).faults()
    assert fault.startswith("--evaluation.scales: must be numbers above 0")


class Counting(by_hand.Convolution):
    """Notes how many windows come at once."""

    def __init__(self):
        super().__init__(torch.float32)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return super().forward(images)


def test_windows_of_one_image_and_images_of_equal_size_share_batches(tmp_path):
    records = by_hand.make_records(tmp_path, [(64, 64)] * 3 + [(40, 40)] * 6)
    network = Counting()
    evaluate_each(network, records, by_hand.CLASSES, [by_hand.protocol_of("cps-slide", batch=4)], precision=FP32)
    assert sorted(network.sizes) == [2, 4, 4, 4, 4]  # six small images; three times two by two windows


@pytest.mark.parametrize("count", [3, 1])
def test_two_processes_count_each_image_once(tmp_path, count):
    """With one image the second process has nothing to do and still gets the scores."""
    records = by_hand.make_records(tmp_path, by_hand.SIZES[:count])
    network, protocols = by_hand.Convolution(torch.float64), [by_hand.protocol_of()]
    (alone,) = evaluate_each(network, records, by_hand.CLASSES, protocols, precision=FP32, by_image=True)
    script = f"""
import dataclasses, json, sys
from pathlib import Path
import torch, torch.distributed as dist
sys.path.insert(0, {os.path.dirname(by_hand.__file__)!r})
import protocols_by_hand as here
from semiseg.engine.evaluation.validation import evaluate_each, own_share
dist.init_process_group("gloo", init_method="file://{tmp_path}/meeting", rank=int(sys.argv[1]), world_size=2)
records = here.make_records(Path({str(tmp_path)!r}) / sys.argv[1], here.SIZES[:{count}])
own = [record.id for record in own_share(records)]
(scores,) = evaluate_each(
    here.Convolution(torch.float64), records, here.CLASSES, [here.protocol_of()], precision=here.FP32, by_image=True
)
print(json.dumps([own, scores.confusion.tolist(), [dataclasses.astuple(one) for one in scores.images]]))
dist.destroy_process_group()
"""
    processes = []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        command = [sys.executable, "-c", script, rank]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    printed = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    shares, counts, images = zip(*printed, strict=True)
    assert sorted(shares[0] + shares[1]) == [record.id for record in records]
    assert counts[0] == counts[1] == alone.confusion.tolist()
    assert images[0] == images[1] == [[*dataclasses.astuple(one)] for one in alone.images]
    assert len(alone.images) == count


def test_without_a_process_group_every_image_is_ones_own(records):
    assert own_share(records) == records
