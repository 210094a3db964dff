"""Images shared out among threads, whose operators are single-threaded: same numbers, nothing else changed."""

import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

from semiseg.kernels import (
    directional_contrast,
    mixed_pseudo_label,
    pseudo_label,
    upsample_confusion,
    upsample_cross_entropy,
    upsample_ohem_cross_entropy,
)
from semiseg.kernels.cpu import directional_contrast as cpu
from semiseg.kernels.cpu import workers

pytestmark = pytest.mark.usefixtures("cpu_implementation")


@pytest.fixture
def two_threads(one_thread):
    torch.set_num_threads(2)


def inputs(batch=5):
    generator = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(batch, 5, 9, 11, generator=generator) for _ in range(2)]
    target = torch.randint(5, (batch, 37, 29), generator=generator, dtype=torch.uint8)
    target[:, :3] = 255
    return *logits, target, torch.rand(batch, 37, 29, generator=generator)


def results(batch=5):
    a, b, target, weight = inputs(batch)
    boxes = torch.tensor([[[3, 2, 20, 17]]] * batch)
    leaves = [a.clone().requires_grad_() for _ in range(2)]
    mean = upsample_cross_entropy(leaves[0], target)
    losses = upsample_cross_entropy(leaves[1], target, reduction="none", pixel_weight=weight)
    (3 * mean).backward()
    losses.square().sum().backward()
    return [
        *(mean.detach(), losses.detach(), leaves[0].grad, leaves[1].grad),
        *pseudo_label(a, (37, 29)),
        *mixed_pseudo_label(a, b, boxes, (37, 29)),
        upsample_confusion(a, target, 5),
    ]


@pytest.mark.parametrize("batch", [2, 5, 9])
def test_the_numbers_are_those_of_one_thread(batch):
    alone = results(batch)
    torch.set_num_threads(2)
    for ours, true in zip(results(batch), alone, strict=True):
        torch.testing.assert_close(ours, true)


@pytest.mark.usefixtures("two_threads")
def test_slices_cover_everything_in_order_on_other_threads():
    found = workers.over(9, lambda part: (list(range(9))[part], threading.get_ident()))
    assert [index for part, _ in found for index in part] == list(range(9))
    assert len(found) > 2
    assert threading.get_ident() not in {thread for _, thread in found}


@pytest.mark.usefixtures("two_threads")
def test_operators_of_workers_are_single_threaded_and_record_nothing_those_of_others_are_as_before():
    assert set(workers.over(8, lambda part: (torch.get_num_threads(), torch.is_grad_enabled()))) == {(1, False)}
    assert torch.get_num_threads() == 2
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


@pytest.mark.usefixtures("two_threads")
def test_operators_work_in_inference_mode():
    a, b, target, _ = inputs()
    boxes = torch.tensor([[[3, 2, 20, 17]]] * 5)

    def run():
        return [
            upsample_cross_entropy(a, target),
            upsample_cross_entropy(a, target, reduction="none"),
            upsample_ohem_cross_entropy(a, target, min_kept=40),
            *pseudo_label(a, (37, 29)),
            *mixed_pseudo_label(a, b, boxes, (37, 29)),
            upsample_confusion(a, target, 5),
        ]

    with torch.inference_mode():
        assert set(workers.over(8, lambda part: torch.is_inference_mode_enabled())) == {True}
        ours = run()
    assert set(workers.over(8, lambda part: torch.is_inference_mode_enabled())) == {False}
    for one, true in zip(ours, run(), strict=True):
        assert one.is_inference()
        assert torch.equal(one, true)


@pytest.mark.parametrize(("threads", "count"), [(1, 8), (2, 1)])
def test_one_thread_or_too_few_images_stay_on_the_callers_thread(threads, count):
    torch.set_num_threads(threads)
    (found,) = workers.over(count, lambda part: (part, threading.get_ident()))
    assert found == (slice(0, count), threading.get_ident())


@pytest.mark.usefixtures("two_threads")
def test_a_wrong_target_raises_as_with_one_thread():
    logits, _, target, _ = inputs()
    target[4, 9, 9] = 77
    with pytest.raises(ValueError, match="target holds 77"):
        upsample_cross_entropy(logits, target)


def test_a_forked_process_makes_threads_of_its_own():
    code = """
import os, torch
from semiseg.kernels.cpu import directional_contrast as cpu
from semiseg.kernels.cpu import workers
torch.set_num_threads(2)
count = lambda part: part.stop - part.start
before = sum(workers.over(8, count))
child = os.fork()
if child == 0:
    os._exit(sum(workers.over(8, count)))
print(before, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["8", "8"], done.stderr


@pytest.mark.parametrize("with_gradient", [True, False])
def test_blocks_of_the_contrast_give_the_numbers_of_one_thread(with_gradient, monkeypatch):
    monkeypatch.setattr(cpu, "ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    features = [F.normalize(torch.randn(count, 8, generator=generator), dim=1) for count in (200, 200, 300)]
    labels, bank_labels = torch.randint(3, (2, 200), generator=generator), torch.randint(3, (300,), generator=generator)
    confidences = torch.rand(2, 200, generator=generator)

    def run():
        first, second = (feature.clone().requires_grad_(with_gradient) for feature in features[:2])
        losses = directional_contrast(first, second, *labels, *confidences, features[2], bank_labels)
        gradients = torch.autograd.grad(sum(losses), (first, second)) if with_gradient else ()
        return [*(loss.detach() for loss in losses), *gradients]

    alone = run()
    torch.set_num_threads(2)
    for ours, true in zip(run(), alone, strict=True):
        torch.testing.assert_close(ours, true)
    if not with_gradient:
        with torch.inference_mode():
            for ours, true in zip(run(), alone, strict=True):
                torch.testing.assert_close(ours, true)
