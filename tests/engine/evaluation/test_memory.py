"""What is known of the memory before a network looks at images, and what is said where it does not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semiseg.engine.device import Precision
from semiseg.engine.evaluation import memory
from semiseg.engine.evaluation.memory import MemoryNeed, group_size, groups_ahead, room_for
from semiseg.engine.evaluation.protocols import classified, confidence, confusion, full_logits
from semiseg.engine.models import build_network, evaluating
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training.forecast import Costs
from semiseg.pipelines.errors import UsageError

FP32 = Precision("fp32", torch.device("cpu"))
CLASSES, HEIGHT, WIDTH = 60, 112, 84


def need_of(**more) -> MemoryNeed:
    form = {"height": HEIGHT, "width": WIDTH, "classes": CLASSES, "head_width": 256, "precision": FP32}
    return MemoryNeed(**form | more)


@pytest.mark.parametrize(
    ("decoder", "backbone", "head_width", "name"),
    [
        ("cac", "resnet18", 16, "whole"),
        ("cac", "resnet18", 16, "slide"),
        ("cac", "efficientnet_lite0", 256, "whole"),
        ("cac", "efficientnet_lite0", 256, "unimatch-slide"),
        ("dpt", "dinov2_small", 16, "whole"),
    ],
)
def test_the_least_is_never_more_than_what_is_taken(decoder, backbone, head_width, name):
    """What fits is not refused."""
    full = need_of(head_width=head_width, full=True)
    counted = need_of(head_width=head_width, images=2, counted=True)
    with torch.device("meta"), Costs() as costs, torch.inference_mode():
        network = build_network(decoder, backbone, CLASSES, head_width=head_width)
        with evaluating(network):
            for said in ({}, {"window": 224}, {"scale": 2.0}, {"scales": (0.5, 1.0)}):
                protocol = Evaluation(protocol=name, **{"window": 84, "batch": 2} | said).resolve(84, 14)
                costs.most = kept = costs.now
                images = torch.empty(1, 3, HEIGHT, WIDTH)
                logits = full_logits(network, images, protocol)
                labels = logits.argmax(1).to(torch.uint8)
                confidence(logits, images, protocol)
                del images, logits, labels
                assert full.least(protocol) <= costs.most - kept
                costs.most = kept
                images = torch.empty(2, 3, HEIGHT, WIDTH)
                confusion(network, images, torch.empty(2, HEIGHT, WIDTH, dtype=torch.uint8), CLASSES, protocol)
                del images
                assert counted.least(protocol) <= costs.most - kept


@pytest.mark.parametrize("name", ["whole", "slide", "dino-whole"])
def test_the_least_of_a_prediction_is_never_more_than_what_is_taken(name):
    """Values are looked at, which tensors without any do not have."""
    network = build_network("cac", "resnet18", CLASSES, head_width=16)
    with Costs() as costs, torch.inference_mode(), evaluating(network):
        for said in ({}, {"window": 224}, {"scale": 0.5}, {"scales": (0.5, 1.0)}):
            protocol = Evaluation(protocol=name, **{"window": 84} | said).resolve(84, 14)
            for probabilities in (False, True):
                costs.most = kept = costs.now
                classified(network, torch.zeros(1, 3, HEIGHT, WIDTH), protocol, probabilities=probabilities)
                assert need_of(head_width=16, full=probabilities).least(protocol) <= costs.most - kept


def test_large_images_are_looked_at_one_by_one_and_few_are_decoded_beside():
    """Of 12 megapixels, as phones make them, and of 48; small ones share a batch as asked for."""
    assert [group_size(8, pixels) for pixels in (480 * 360, 2048 * 1024, 4032 * 3024, 8000 * 6000)] == [8, 8, 1, 1]
    assert [groups_ahead(pixels) for pixels in (8 * 480 * 360, 2**24, 8000 * 6000, 20000 * 15000)] == [4, 4, 1, 0]
    protocol = Evaluation(longest=3.0).resolve(160)
    phone, many = (need_of(height=3024, width=4032, counted=True, images=images).least(protocol) for images in (1, 24))
    assert many - phone == 4 * 3024 * 4032 * 4
    on_gpu = need_of(
        height=3024, width=4032, counted=True, images=24, precision=Precision("fp32", torch.device("cuda"))
    )
    assert on_gpu.least(protocol) == phone


@pytest.mark.parametrize(
    ("change", "images", "free", "cures"),
    [
        ({}, 1, 100e6, ["--protocol slide --window 32"]),
        ({}, 1, None, ["--protocol slide --window 32"]),
        ({}, 9, 250e6, ["--protocol slide --window 32", "--batch 1"]),
        ({"name": "slide", "window": 4000}, 1, 250e6, ["a smaller --window"]),
        ({"scale": 9.0}, 1, 250e6, ["a smaller --scale"]),
        ({"long_side": 9000.0}, 1, 250e6, ["a smaller --scale"]),
        ({"scales": (1.0, 9.0)}, 1, 250e6, ["smaller --scales"]),
        ({"scales": (1.0, 9.0), "scale": 9.0}, 1, 250e6, []),
    ],
)
def test_a_cure_is_one_that_helps_by_itself(change, images, free, cures):
    need = need_of(height=1000, width=1000, classes=2, images=images)
    protocol = replace(Evaluation().resolve(32), **change)
    assert free is None or need.least(protocol) > free
    assert need.cures(protocol, free) == cures


def test_the_line_names_the_need_the_room_and_the_cures(monkeypatch):
    """Also where only torch finds that it does not do."""
    monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: 2**34)
    need, protocol = need_of(), Evaluation().resolve(32)
    with pytest.raises(UsageError) as error, room_for(need, protocol, "a.png: for which", "cut it"):
        torch.empty(10**14)
    assert str(error.value) == (
        "a.png: for which whole needs more than 0.0 GiB of memory where 16.0 are free; "
        "pass --protocol slide --window 32, or cut it"
    )
