"""Gradients that are accumulated over the micro-batches of a step."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from semiseg.engine.api import train
from semiseg.engine.data import prepare_data
from semiseg.engine.device import Precision
from semiseg.engine.methods import METHODS
from semiseg.engine.models.grouping import batch_norms
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method, open_loader
from semiseg.engine.training.outcome import differences, outcome
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.step import Step
from semiseg.pipelines.errors import UsageError
from shares import doubled

CPU = torch.device("cpu")


def method_of(recipe: Recipe, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    method = build_method(recipe, classes).double().train()
    torch.manual_seed(1)  # the same dropout
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_step_follows_the_mean_gradient_of_its_micro_batches(tiny, random_batch, name):
    """One after the other: the second finds what the first one leaves, as CAC's bank and running statistics."""
    changes = {"steps": 10, "optimizer": "sgd", "lr": 0.1, "batch": 4, "accumulate": 2}
    recipe = tiny(name, **changes).replace(momentum=0.0, weight_decay=0.0, backbone_lr=1.0)
    if name == "cac":
        recipe.method.threshold, recipe.method.start = 0.0, 0.0
    first, second = (doubled(random_batch(METHODS[name].views.unlabeled, seed)) for seed in (0, 1))

    alone = method_of(recipe)
    alone.begin()
    alone.before_step(0, 0.0)
    losses = [alone.losses(batch, 0.0) for batch in (first, second)]
    for one in losses:
        one["loss"].backward()
    gradients = {name: p.grad / 2 for name, p in alone.named_parameters() if p.grad is not None}

    method = method_of(recipe)
    step = Step(recipe, method, Precision("fp32", CPU))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    found = step(replace(first, more=(second,)), 0)
    for term, value in found.items():
        torch.testing.assert_close(value, (losses[0][term] + losses[1][term]).detach() / 2)
    for name, parameter in method.named_parameters():
        if name in gradients and parameter.requires_grad:
            moved = (before[name] - parameter.detach()) / 0.1
            torch.testing.assert_close(moved, gradients[name], rtol=1e-6, atol=1e-9, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("name", ["supervised", "cps", "cutmix_cps", "mean_teacher", "cutmix_seg", "fixmatch"])
def test_where_no_batch_is_normalised_it_changes_nothing(tiny, voc_root, name):
    """The same windows, boxes and partners, and means over the same parts, all at once or one after the other."""
    recipe = tiny(name, data=voc_root(), batch=4, emulate_processes=2, lr=0.02)
    data = prepare_data(recipe)

    def trained(accumulate: int) -> dict[str, torch.Tensor]:
        ours = recipe.replace(accumulate=accumulate)
        method = method_of(ours, len(data.dataset.classes))
        for norm in batch_norms(method):
            norm.eval()
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        step = Step(ours, method, Precision("fp32", CPU))
        for number, batch in enumerate(open_loader(ours, data, CPU)):
            assert len(batch.micro_batches) == accumulate
            step(doubled(batch), number)
        return method.state_dict()

    whole, parts = trained(1), trained(2)
    for key, expected in whole.items():
        torch.testing.assert_close(parts[key], expected, rtol=1e-9, atol=1e-11, msg=lambda text, k=key: k + text)


def test_the_bank_of_cac_holds_as_many_steps_however_they_are_cut(tiny):
    whole, parts = (build_method(tiny("cac", batch=8, accumulate=n), 3).bank for n in (1, 4))
    assert parts.labels.shape == (4 * len(whole.labels), whole.labels.shape[1] // 4)
    assert parts.features.numel() == whole.features.numel()


def test_a_run_that_accumulates_goes_on_bit_for_bit(tiny, voc_root):
    recipe = tiny("cutmix_seg", data=voc_root(), batch=4, accumulate=2, steps=4, eval_every=4, save_every="2")

    def stop(event):
        if event.kind == "log" and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    straight = train(recipe)
    halves = recipe.replace(out=recipe.runtime.out.with_name("halves"))
    with pytest.raises(Stopped):
        train(halves, stop)
    with pytest.raises(UsageError, match=r"--resume: .*accumulate"):
        train(halves.replace(resume=True, accumulate=1))
    again = train(halves.replace(resume=True))
    assert differences(outcome(straight.out), outcome(again.out)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 4, "accumulate": 3}, "--accumulate: must be at least 1 and divide the batch of 4"),
        ({"batch": 4, "accumulate": 0}, "--accumulate: must be at least 1"),
        ({"batch": 4, "accumulate": 4}, "at least 2 in each: pass at most 2, or a larger --batch"),
        (
            {"batch": 12, "accumulate": 3, "emulate_processes": 2},
            "3 micro-batches cannot hold whole ones of the 2",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(tiny, changes, says):
    with pytest.raises(UsageError, match=says):
        tiny("cps", **changes).check()
