"""Every protocol, count for count, against an evaluation of one image at a time in numpy and float64.

The reference is written from the descriptions of the published evaluations (CAC: Lai et al., 2021, whole images; CPS:
Chen et al., 2021, windows; UniMatch: Yang et al., 2023 and 2025, both), with arithmetic of its own throughout.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from semiseg.engine.data import prepare_manifest
from semiseg.engine.device import Precision
from semiseg.engine.evaluation.inference import segment
from semiseg.engine.evaluation.protocols import confusion, full_logits, reflected, starts, tiling
from semiseg.engine.evaluation.validation import batches, evaluate_each, normalised, own_share
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation, Protocol
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.decode import COLOUR, read

CPU = torch.device("cpu")
CLASSES = ("ground", "car", "tree", "sky", "sea")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = [(33, 47), (64, 64), (100, 37), (33, 47), (9, 90), (64, 64), (48, 48)]
WINDOW = 48
FP32 = Precision("fp32", CPU)
REAL = "SEMISEG_TEST_DATA"


def protocol_of(name: str = "whole", crop: int = WINDOW, **settings) -> Protocol:
    return Evaluation(protocol=name, **settings).resolve(crop)


# ---- the reference: images (3, H, W) and logits (C, h, w), all float64; `network` maps the one to the other


def interpolation(target: int, source: int, aligned: bool, antialias: bool = False) -> np.ndarray:
    """(target, source) weights of linear interpolation along one axis."""
    ratio = source / target
    if aligned:
        centres = np.arange(target) * ((source - 1) / (target - 1) if target > 1 else 0)
    else:
        centres = (np.arange(target) + 0.5) * ratio - 0.5
    width = max(ratio, 1.0) if antialias else 1.0
    if not antialias:
        centres = centres.clip(0, source - 1)
    weights = (1 - np.abs(np.arange(source) - centres[:, None]) / width).clip(0)
    return weights / weights.sum(1, keepdims=True)


def resized(maps: np.ndarray, size: tuple[int, int], aligned: bool, antialias: bool = False) -> np.ndarray:
    rows = interpolation(size[0], maps.shape[1], aligned, antialias)
    columns = interpolation(size[1], maps.shape[2], aligned, antialias)
    return rows @ maps @ columns.T


def seen(network, window: np.ndarray, flip: bool) -> np.ndarray:
    """Logits of a window at its own size."""
    logits = resized(network(window), window.shape[1:], aligned=True)
    return logits + resized(network(window[:, :, ::-1]), window.shape[1:], aligned=True)[:, :, ::-1] if flip else logits


def whole_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    height, width = image.shape[1:]
    if (height, width) == size:
        padded = np.pad(image, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
        return seen(network, padded, flip)[:, :height, :width]
    assert height % 8 == width % 8 == 0
    logits = network(image) + (network(image[:, :, ::-1])[:, :, ::-1] if flip else 0)
    return resized(logits, size, aligned=True)


def slide_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool, published: bool):
    _, height, width = image.shape
    below, beside = max(window - height, 0), max(window - width, 0)
    margins = ((below // 2, below - below // 2), (beside // 2, beside - beside // 2))
    # Small images are padded after normalisation, so with the mean colour; those with one long side before it.
    black = published and max(height, width) > window
    padded = np.stack([np.pad(image[c], margins, constant_values=-MEAN[c] / STD[c] if black else 0) for c in range(3)])
    _, rows, columns = padded.shape
    stride = math.ceil(window * 2 / 3)
    total, count = 0, np.zeros((rows, columns))
    for i in range(math.ceil((rows - window) / stride) + 1):
        for j in range(math.ceil((columns - window) / stride) + 1):
            y, x = min(i * stride, rows - window), min(j * stride, columns - window)
            logits = seen(network, padded[:, y : y + window, x : x + window], flip)
            placed = np.zeros((len(logits), rows, columns))
            placed[:, y : y + window, x : x + window] = logits
            total = total + placed
            count[y : y + window, x : x + window] += 1
    total = total if published else total / count
    total = total[:, margins[0][0] : margins[0][0] + height, margins[1][0] : margins[1][0] + width]
    return total if (height, width) == size else resized(total, size, aligned=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def as_it_is_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    logits = network(image) + (network(image[:, :, ::-1])[:, :, ::-1] if flip else 0)
    return resized(logits, size, aligned=True)


def resized_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    nearest = tuple(8 * max(int(side / 8 + 0.5), 1) for side in image.shape[1:])
    return resized(seen(network, resized(image, nearest, aligned=True), flip), size, aligned=True)


def ragged_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool) -> np.ndarray:
    _, height, width = image.shape
    total = 0
    y = 0
    while y < height:
        x = 0
        while x < width:
            inside = np.s_[y : min(y + window, height), x : min(x + window, width)]
            said = softmax(seen(network, image[:, *inside], flip))
            placed = np.zeros((len(said), height, width))
            placed[:, *inside] = said
            total = total + placed
            x += int(2 * window / 3)
        y += int(2 * window / 3)
    return total if (height, width) == size else resized(total, size, aligned=False)


def shifted_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool) -> np.ndarray:
    _, height, width = image.shape
    below, beside = max(window - height, 0), max(window - width, 0)
    padded = np.pad(image, ((0, 0), (below // 2, below - below // 2), (beside // 2, beside - beside // 2)))
    _, rows, columns = padded.shape
    total, y = 0, 0
    while True:
        x = 0
        while True:
            said = softmax(seen(network, padded[:, y : y + window, x : x + window], flip))
            placed = np.zeros((len(said), rows, columns))
            placed[:, y : y + window, x : x + window] = said
            total = total + placed
            if x + window >= columns:
                break
            x = min(x + int(2 * window / 3), columns - window)
        if y + window >= rows:
            break
        y = min(y + int(2 * window / 3), rows - window)
    total = total[:, below // 2 : below // 2 + height, beside // 2 : beside // 2 + width]
    return total if (height, width) == size else resized(total, size, aligned=False)


BY_HAND = {
    "unimatch-whole": as_it_is_by_hand,
    "dino-whole": resized_by_hand,
    "unimatch-slide": ragged_by_hand,
    "unimatch2-slide": shifted_by_hand,
}


def said_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """Logits or probabilities of one image, added, from its file on."""
    image = ((np.asarray(Image.open(record.image)) / 255 - MEAN) / STD).transpose(2, 0, 1)
    size = image.shape[1:]
    logits = 0
    for scale in protocol.scales:
        scaled = image
        if scale != 1:
            smaller = tuple(8 * max(round(side * scale / 8), 1) for side in size)
            scaled = resized(image, smaller, aligned=False, antialias=True)
        if protocol.name in BY_HAND:
            window = (protocol.window,) if protocol.convention.windows else ()
            logits = logits + BY_HAND[protocol.name](network, scaled, size, *window, protocol.flip)
        elif "whole" in protocol.name:
            logits = logits + whole_by_hand(network, scaled, size, protocol.flip)
        else:
            published = protocol.name == "cps-slide"
            logits = logits + slide_by_hand(network, scaled, size, protocol.window, protocol.flip, published)
    return logits


def predicted_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """Class indices of one image, from its file on."""
    return said_by_hand(network, record, protocol).argmax(0)


def sure_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """The largest probability of each pixel: of the mean of logits, or of probabilities."""
    said = said_by_hand(network, record, protocol)
    if "unimatch" in protocol.name and "slide" in protocol.name:
        return (said / said.sum(0)).max(0)
    return softmax(said / said_by_hand(lambda image: np.ones((1, 1, 1)), record, protocol)).max(0)


def counted_by_hand(predicted: np.ndarray, record: Record, classes: int) -> np.ndarray:
    truth = np.asarray(Image.open(record.mask))
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth[truth != 255], predicted[truth != 255]), 1)
    return counts


def by_hand(network, records: list[Record], protocol: Protocol) -> np.ndarray:
    """The confusion matrix."""
    return sum(counted_by_hand(predicted_by_hand(network, one, protocol), one, len(CLASSES)) for one in records)


# ---- networks whose logits the reference can compute


class Given(torch.nn.Module):
    """Logits looked up in a table by the image's own values: every fourth pixel's red and green."""

    mean, std, head_width = tuple(MEAN), tuple(STD), 16

    def __init__(self):
        super().__init__()
        self.table = np.random.default_rng(1).normal(size=(2, 256, len(CLASSES)))

    def reference(self, image: np.ndarray) -> np.ndarray:
        value = (image[:2, ::4, ::4] * STD[:2, None, None] + MEAN[:2, None, None]) * 255
        red, green = np.rint(value).astype(int)
        return (self.table[0][red] + self.table[1][green]).transpose(2, 0, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.reference(image.double().numpy()) for image in images]))


class Convolution(torch.nn.Module):
    """A fixed 7x7 convolution of stride 4 with zeros around the image: logits depend on the position in the window."""

    mean, std, head_width = tuple(MEAN), tuple(STD), 16

    def __init__(self, dtype: torch.dtype, size: float = 1.0):
        super().__init__()
        self.weight = size * np.random.default_rng(2).normal(size=(len(CLASSES), 3, 7, 7))
        self.dtype = dtype

    def reference(self, image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (1, 2))[:, ::4, ::4]
        return np.einsum("dhwkl,cdkl->chw", patches, self.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = torch.from_numpy(self.weight).to(self.dtype)
        return torch.nn.functional.conv2d(images.to(self.dtype), weight, stride=4, padding=3)


def make_records(folder: Path, sizes) -> list[Record]:
    """Noise with void pixels, and a class (the last) that no truth holds."""
    rng = np.random.default_rng(0)
    made = []
    for number, (height, width) in enumerate(sizes):
        image, mask = folder / f"{number}.png", folder / f"{number}-mask.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.choice([0, 1, 2, 3, 255], (height, width)).astype(np.uint8)).save(mask)
        made.append(Record(f"{number}", image, mask, height, width))
    return made


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
    for images, targets in batches(network, records, 2, CPU):
        predicted = full_logits(network, images, protocol).argmax(1)
        counts = confusion(network, images, targets, len(CLASSES), protocol)
        assert predicted.shape == targets.shape
        for truth in range(len(CLASSES)):
            assert counts[truth].tolist() == predicted[targets == truth].bincount(minlength=len(CLASSES)).tolist()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_come_with_their_probabilities(records, name, scales, flip):
    network = Convolution(torch.float64, size=0.1)
    protocol = protocol_of(name, scales=scales, flip=flip)
    for record in records:
        image = read(record.image, COLOUR)
        mask, sure = segment(network, image, protocol, FP32)
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
        _, sure = segment(Constant(torch.float32), image, protocol, FP32)
        np.testing.assert_allclose(sure, softmax(np.array([0.0, 1.0, -2.0]))[1], rtol=1e-6)


def test_a_network_that_says_no_number_is_not_sure():
    class Broken(Convolution):
        def forward(self, images):
            return super().forward(images) * float("nan")

    _, sure = segment(Broken(torch.float32), np.zeros((32, 32, 3), np.uint8), protocol_of(), FP32)
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


class Counting(Convolution):
    """Notes how many windows come at once."""

    def __init__(self):
        super().__init__(torch.float32)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return super().forward(images)


def test_windows_of_one_image_and_images_of_equal_size_share_batches(tmp_path):
    records = make_records(tmp_path, [(64, 64)] * 3 + [(40, 40)] * 6)
    network = Counting()
    evaluate_each(network, records, CLASSES, [protocol_of("cps-slide", batch=4)], precision=FP32)
    assert sorted(network.sizes) == [2, 4, 4, 4, 4]  # six small images; three times two by two windows


@pytest.mark.parametrize("count", [3, 1])
def test_two_processes_count_each_image_once(tmp_path, count):
    """With one image the second process has nothing to do and still gets the scores."""
    records = make_records(tmp_path, SIZES[:count])
    (alone,) = evaluate_each(Convolution(torch.float64), records, CLASSES, [protocol_of()], precision=FP32)
    script = f"""
import importlib.util, json, sys, torch
from pathlib import Path
import torch.distributed as dist
spec = importlib.util.spec_from_file_location("test_protocols", {__file__!r})
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
dist.init_process_group("gloo", init_method="file://{tmp_path}/meeting", rank=int(sys.argv[1]), world_size=2)
records = here.make_records(Path({str(tmp_path)!r}) / sys.argv[1], here.SIZES[:{count}])
own = [record.id for record in here.own_share(records)]
(scores,) = here.evaluate_each(
    here.Convolution(torch.float64), records, here.CLASSES, [here.protocol_of()], precision=here.FP32
)
print(json.dumps([own, scores.confusion.tolist()]))
dist.destroy_process_group()
"""
    processes = []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        command = [sys.executable, "-c", script, rank]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    shares, counts = zip(*(json.loads(process.communicate(timeout=600)[0]) for process in processes), strict=True)
    assert sorted(shares[0] + shares[1]) == [record.id for record in records]
    assert counts[0] == counts[1] == alone.confusion.tolist()


def test_without_a_process_group_every_image_is_ones_own(records):
    assert own_share(records) == records


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
            found, _ = segment(network, read(record.image, COLOUR), protocol, FP32)
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
