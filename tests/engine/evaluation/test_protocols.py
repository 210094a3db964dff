"""Every protocol, count for count, against an evaluation of one image at a time in numpy and float64."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from protocols_by_hand import (
    BY_HAND,
    CLASSES,
    CPU,
    FP32,
    SIZES,
    Convolution,
    Given,
    by_hand,
    counted_by_hand,
    make_records,
    predicted_by_hand,
    protocol_of,
    softmax,
    sure_by_hand,
)
from semiseg.engine.data import prepare_manifest
from semiseg.engine.device import repeatable
from semiseg.engine.evaluation.inference import segment
from semiseg.engine.evaluation.protocols import confusion, full_logits, reflected, starts, tiling
from semiseg.engine.evaluation.validation import batches, evaluate_each, normalised
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training.forecast import Costs
from semiseg.kernels import upsample
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.decode import COLOUR, read

REAL = "SEMISEG_TEST_DATA"


@pytest.fixture
def records(tmp_path) -> list[Record]:
    return make_records(tmp_path, SIZES)


PROTOCOLS = ("whole", "cac-whole", "slide", "cps-slide", *BY_HAND)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("network", [Given(), Convolution(torch.float64)], ids=["given", "convolution"])
def test_on_identical_logits_counts_are_equal(records, network, flip):
    protocols = [protocol_of(name, batch=3, flip=flip) for name in PROTOCOLS]
    scores = evaluate_each(network, records, CLASSES, protocols, precision=FP32)
    for protocol, score in zip(protocols, scores, strict=True):
        expected = by_hand(network.reference, records, protocol)
        np.testing.assert_array_equal(score.confusion, expected, protocol.name)
    assert (scores[0].confusion != scores[2].confusion).any()
    assert (scores[2].confusion != scores[3].confusion).any()  # the two paddings of a narrow image


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(0.5, 1.0, 1.5), (0.75,)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_several_scales(records, name, scales, flip):
    network = Convolution(torch.float64)
    protocol = protocol_of(name, scales=scales, flip=flip)
    (score,) = evaluate_each(network, records, CLASSES, [protocol], precision=FP32)
    expected = by_hand(network.reference, records, protocol)
    # The engine resizes images in float32, which may turn one close decision: it leaves one class and enters another.
    assert np.abs(score.confusion - expected).sum() <= 2


@pytest.mark.parametrize("name", PROTOCOLS)
def test_in_single_precision_one_pixel_in_100_000_may_differ(tmp_path, name):
    records = make_records(tmp_path, [(300, 413), (256, 400)])  # 181,000 pixels that are not void
    protocol = protocol_of(name, window=150)
    # Windows that are both certain and disagree are a tie in single precision: probabilities are far from 0 and 1.
    network = Convolution(torch.float32, size=0.05 if protocol.convention.probabilities else 1.0)
    (score,) = evaluate_each(network, records, CLASSES, [protocol], precision=FP32)
    expected = by_hand(network.reference, records, protocol)
    # An image that is resized in single precision, too, may turn another.
    assert np.abs(score.confusion - expected).sum() <= (4 if protocol.convention.sides == "resized" else 2)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_predictions_are_what_is_counted(records, name):
    network = Convolution(torch.float64)
    protocol = protocol_of(name, scale=0.75, flip=True)
    for _, images, targets in batches(network, records, 2, CPU):
        predicted = full_logits(network, images, protocol).argmax(1)
        counts = confusion(network, images, targets, len(CLASSES), protocol)
        each = confusion(network, images, targets, len(CLASSES), protocol, by_image=True)
        assert predicted.shape == targets.shape
        assert len(each) == len(images)
        assert torch.equal(each.sum(0), counts)
        for counted, mask, target in zip(each, predicted, targets, strict=True):
            for truth in range(len(CLASSES)):
                assert counted[truth].tolist() == mask[target == truth].bincount(minlength=len(CLASSES)).tolist()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_come_with_their_probabilities(records, name, scales, flip):
    network = Convolution(torch.float64, size=0.1)
    protocol = protocol_of(name, scales=scales, flip=flip)
    for record in records:
        image = read(record.image, COLOUR)
        mask, sure, _ = segment(network, image, protocol, FP32)
        np.testing.assert_allclose(sure, sure_by_hand(network.reference, record, protocol), atol=1e-5)
        labels = full_logits(network, normalised(network, image[None], CPU), protocol)[0].argmax(0)
        np.testing.assert_array_equal(mask, labels)


@pytest.mark.parametrize("name", ["whole", "slide", "cps-slide", "unimatch-slide"])
def test_looking_more_often_at_the_same_makes_no_pixel_surer(name):
    """Three scales and mirror images of one colour all say what the image alone does."""

    class Constant(Convolution):
        def forward(self, images):
            return torch.tensor([0.0, 1.0, -2.0])[:, None, None].expand(len(images), 3, 9, 9)

    image = np.zeros((100, 72, 3), np.uint8)
    protocols = [protocol_of(name), protocol_of(name, scales=(0.5, 1.0, 1.5), flip="unimatch" not in name)]
    for protocol in protocols:
        sure = segment(Constant(torch.float32), image, protocol, FP32).confidence
        np.testing.assert_allclose(sure, softmax(np.array([0.0, 1.0, -2.0]))[1], rtol=1e-6)


def test_a_network_that_says_no_number_is_not_sure():
    class Broken(Convolution):
        def forward(self, images):
            return super().forward(images) * float("nan")

    sure = segment(Broken(torch.float32), np.zeros((32, 32, 3), np.uint8), protocol_of(), FP32).confidence
    assert (sure == 0).all()


def test_windows_of_the_published_programs():
    def corners(height, width, crop):
        return tiling(protocol_of("cps-slide", crop), height, width).corners

    assert corners(1024, 2048, 800) == tuple((y, x) for y in (0, 224) for x in (0, 534, 1068, 1248))
    assert corners(375, 500, 512) == ((0, 0),)
    assert tiling(protocol_of("cps-slide", 512), 375, 500).padding == (6, 6, 68, 69)
    assert starts(1024, 512, 342) == [0, 342, 512]
    cut, moved = (tiling(protocol_of(f"{name}-slide", 801), 1024, 2048) for name in ("unimatch", "unimatch2"))
    assert cut.corners == tuple((y, x) for y in (0, 534) for x in (0, 534, 1068, 1602))
    assert {*cut.windows(1024, 2048)} == {(801, 801), (490, 801), (801, 446), (490, 446)}
    assert moved.corners == tuple((y, x) for y in (0, 223) for x in (0, 534, 1068, 1247))
    moved = tiling(protocol_of("unimatch2-slide", 798), 1024, 2048)
    assert moved.corners == tuple((y, x) for y in (0, 226) for x in (0, 532, 1064, 1250))
    # Two thirds of a window are rounded down, not up.
    assert tiling(protocol_of("unimatch2-slide", 512), 512, 1024).corners == ((0, 0), (0, 341), (0, 512))
    assert tiling(protocol_of("cac-whole", 320), 375, 500).padding == (0, 4, 0, 1)


@pytest.mark.skipif(REAL not in os.environ, reason=f"needs ${REAL}: the root of a VOC-like tree of real photographs")
def test_on_real_photographs_one_pixel_in_100_000_may_differ(tmp_path, monkeypatch):
    """A network of random weights in float32 against itself in float64, on 24 images by both published protocols, by
    the second in one window and in several."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path))
    root = Path(os.environ[REAL])
    dataset = find_dataset("voc" if (root / "ImageSets").is_dir() else "folder", root)
    manifest = prepare_manifest(dataset)
    chosen = np.unique(np.linspace(0, len(dataset.val) - 1, 24).astype(int))
    records = [manifest.records[dataset.val[index].id] for index in chosen]
    torch.manual_seed(0)
    network = build_network("cac", "resnet18", len(dataset.classes), head_width=64)
    protocols = [protocol_of("cac-whole", 320), protocol_of("cps-slide", 512), protocol_of("cps-slide", 320)]
    scores = evaluate_each(network, records, dataset.classes, protocols, precision=FP32)

    exact = build_network("cac", "resnet18", len(dataset.classes), head_width=64).double().eval()
    exact.load_state_dict(network.state_dict())

    @torch.no_grad()
    def reference(image: np.ndarray) -> np.ndarray:
        return exact(torch.from_numpy(image.copy())[None])[0].numpy()

    for protocol, score in zip(protocols, scores, strict=True):
        expected, differing, pixels = 0, 0, 0
        for record in records:
            wanted = predicted_by_hand(reference, record, protocol)
            expected = expected + counted_by_hand(wanted, record, len(dataset.classes))
            found = segment(network, read(record.image, COLOUR), protocol, FP32).labels
            differing, pixels = differing + (found != wanted).sum(), pixels + wanted.size
        moved = np.abs(score.confusion - expected).sum() / 2
        classes = np.count_nonzero(score.confusion.sum(0))
        print(
            f"{dataset.root.name}, {protocol}: {len(records)} images, {classes} classes predicted, "
            f"{differing} of {pixels} pixels differ, {moved:g} of {expected.sum()} counted ones moved"
        )
        assert score.confusion.sum() == expected.sum()
        assert max(differing, moved) <= pixels / 100_000


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (4, 33), (9, 2)])
def test_images_smaller_than_their_padding_are_mirrored_back_and_forth(height, width):
    image = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    bottom, right = -height % 8, -width % 8
    padded = reflected(reflected(image, 2, bottom), 3, right)[0, 0].numpy()
    np.testing.assert_array_equal(padded, np.pad(image[0, 0].numpy(), ((0, bottom), (0, right)), mode="reflect"))


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"scale": 1.3}, {"protocol": "slide", "window": 28}, {"flip": True}])
def test_sides_of_patches_are_kept_whatever_the_size_of_the_image(settings):
    """DINOv2 refuses sides that are no multiples of 14: whole images are reflected, resized ones rounded to them."""
    torch.manual_seed(0)
    network = build_network("dpt", "dinov2_small", 3, head_width=16).eval()
    images = torch.randn(2, 3, 33, 47)
    protocol = Evaluation(**{"protocol": "whole"} | settings).resolve(42, 14)
    logits = full_logits(network, images, protocol)
    assert logits.shape == (2, 3, 33, 47)
    if not settings:
        padded = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (0, 9), (0, 9)), mode="reflect"))
        expected = torch.nn.functional.interpolate(network(padded), (42, 56), mode="bilinear", align_corners=True)
        torch.testing.assert_close(logits, expected[..., :33, :47])
    counts = confusion(network, images, torch.zeros(2, 33, 47, dtype=torch.uint8), 3, protocol)
    expected = torch.bincount(logits.argmax(1).flatten(), minlength=3)
    assert (counts[0] - expected).abs().max() <= 2


def test_logits_of_half_precision_are_upsampled_in_single_precision():
    class Half:
        mean, std = (0.0,) * 3, (1.0,) * 3

        def __call__(self, images):
            return F.avg_pool2d(images, 8).bfloat16()

    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    said = full_logits(Half(), images, protocol_of("whole"))
    low = F.avg_pool2d(images, 8).bfloat16().float()
    torch.testing.assert_close(said, F.interpolate(low, (32, 32), mode="bilinear", align_corners=True))


def test_upsampling_on_a_gpu_makes_nothing_but_its_result_where_the_same_bits_are_wanted(monkeypatch):
    """torch takes its own apart then, and holds several such maps at once. Tensors that hold nothing need no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with repeatable(True), FakeTensorMode(), Costs() as costs, torch.inference_mode():
        logits = torch.empty(1, 4, 16, 16, device="cuda")
        before = costs.now
        full = upsample(logits, (64, 64))
        assert costs.most - before == full.nbytes
