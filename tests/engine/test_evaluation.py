"""Evaluation: counts against an independent one, protocols, modes."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from semiseg.engine.evaluation import Scores, batches, evaluate, slide, starts, whole
from semiseg.engine.models import build_network
from semiseg.engine.recipe import Evaluation
from semiseg.pipelines.manifest import Record

CLASSES = ("ground", "car", "tree")
CPU = torch.device("cpu")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """Five images of two sizes, with void pixels."""
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
    torch.manual_seed(0)
    return build_network("cps", "resnet18", 3, head_width=16).train()


def by_hand(network, record: Record, protocol: str) -> torch.Tensor:
    """Class indices of one image, from its file on."""
    pixels = (np.asarray(Image.open(record.image)) / 255 - MEAN) / STD
    image = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
    _, _, h, w = image.shape
    network.eval()
    with torch.no_grad():
        if protocol == "whole":
            padded = F.pad(image, (0, -w % 8, 0, -h % 8), mode="reflect")
            logits = F.interpolate(network(padded), padded.shape[-2:], mode="bilinear", align_corners=True)
            return logits[0, :, :h, :w].argmax(0)
        padded = F.pad(image, (0, max(32 - w, 0), 0, max(32 - h, 0)))
        total = torch.zeros(3, *padded.shape[-2:])
        for y in {0, min(22, h - 32), h - 32}:
            for x in {0, min(22, w - 32), w - 32}:
                window = padded[..., y : y + 32, x : x + 32]
                total[:, y : y + 32, x : x + 32] += F.interpolate(
                    network(window), (32, 32), mode="bilinear", align_corners=True
                )[0]
        return total.argmax(0)


@pytest.mark.parametrize("protocol", ["whole", "slide"])
def test_counts_agree_with_one_image_at_a_time_and_with_torchmetrics(records, network, protocol):
    evaluation = Evaluation(protocol=protocol, window=32, batch=2)
    scores = evaluate(network, records, CLASSES, evaluation, crop=32, device=CPU)
    assert network.training
    metric = MulticlassJaccardIndex(3, ignore_index=255, average="none")
    expected = np.zeros((3, 3), np.int64)
    for record in records:
        predicted = by_hand(network, record, protocol)
        truth = torch.from_numpy(np.asarray(Image.open(record.mask)).astype(np.int64))
        metric.update(predicted[None], truth[None])
        valid = truth != 255
        np.add.at(expected, (truth[valid].numpy(), predicted[valid].numpy()), 1)
    assert scores.confusion.sum() == expected.sum()
    assert np.abs(scores.confusion - expected).sum() <= 2  # float32 ties
    np.testing.assert_allclose(list(scores.iou.values()), metric.compute().numpy(), atol=1e-3)


def test_images_of_equal_size_come_together(records):
    shapes = [tuple(images.shape) for images, _ in batches(records, 2, CPU)]
    assert sorted(shapes) == [(1, 3, 40, 56), (2, 3, 33, 47), (2, 3, 40, 56)]


def test_starts_cover_cityscapes_with_two_by_four_windows():
    assert starts(1024, 800) == [0, 224]
    assert starts(2048, 800) == [0, 534, 1068, 1248]
    assert starts(512, 512) == [0]


def test_slide_of_one_window_is_the_whole_image(network):
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        network.eval()
        torch.testing.assert_close(slide(network, image, 32, 4), whole(network, image))


def test_slide_centres_a_small_image(network):
    image = torch.randn(1, 3, 20, 27)
    padded = F.pad(image, (2, 3, 6, 6))
    with torch.no_grad():
        network.eval()
        torch.testing.assert_close(slide(network, image, 32, 4), whole(network, padded)[..., 6:26, 2:29])


def test_classes_that_nobody_holds_have_no_vote():
    scores = Scores(np.array([[8, 2, 0], [0, 10, 0], [0, 0, 0]]), CLASSES)
    assert np.isnan(scores.iou["tree"])
    assert scores.miou == pytest.approx((8 / 10 + 10 / 12) / 2)
    assert scores.pixel_accuracy == pytest.approx(18 / 20)


def test_autocast_is_used(records, network):
    entered = []

    def autocast():
        entered.append(True)
        return nullcontext()

    evaluate(network, records[:1], CLASSES, Evaluation(), crop=32, device=CPU, autocast=autocast)
    assert entered
