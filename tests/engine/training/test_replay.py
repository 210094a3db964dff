"""The step at which a run stopped being finite is found from what the run left, and the run's folder stays as it is."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from semiseg.engine.methods.supervised import Supervised
from semiseg.engine.training.replay import FirstNonFinite, replay
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Contents and times of all files."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def broken(tiny, voc_root, monkeypatch):
    """`broken(at, factor, ...)`: the folder of a run that has stopped because the classifier's weights are multiplied
    by a factor after step `at`."""

    def build(at: int, factor: float, **changes) -> Path:
        steps = []

        def after_step(self):
            if steps[-1] + 1 == at:
                self.network.classifier.weight.data.mul_(factor)

        monkeypatch.setattr(Supervised, "before_step", lambda self, step, progress: steps.append(step))
        monkeypatch.setattr(Supervised, "after_step", after_step)
        trainer = Trainer(tiny("supervised", data=voc_root(), eval_every=100, **({"steps": 9} | changes)))
        with pytest.raises(UsageError, match=r"semiseg replay .*run"):
            trainer.train()
        return trainer.folder

    return build


def test_a_value_too_large_for_half_precision_is_cured_by_single(broken):
    """Found at a log line, after the save of step 4; the bad step lies between two log lines."""
    folder = broken(4, 1e7, precision="fp16", steps=6, log_every=6, save_every="2")
    before = files(folder)
    found = replay(folder)
    assert files(folder) == before
    assert (found.save, found.last, found.what) == (4, 5, "the loss (supervised)")
    half, single, double = found.repeats
    assert [repeat.precision for repeat in found.repeats] == ["fp16", "fp32", "fp64"]
    assert half.first == "aten::_to_copy in network.classifier"  # of weights beyond 65504
    assert "network.classifier.weight" in half.gradients
    assert (single.first, double.first) == (None, None)
    assert single.losses["loss"] == pytest.approx(double.losses["loss"], rel=1e-3)
    assert found.cure == "fp32"
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["repeats"][0]["losses"]["loss"] in ("nan", "inf")


def test_images_of_the_step_are_those_of_the_plan(broken, monkeypatch):
    seen = []
    losses = Supervised.losses

    def looking(self, batch, progress):
        seen.append(batch.labeled.image.sum())
        return losses(self, batch, progress)

    folder = broken(2, math.inf, save_every="1")
    monkeypatch.setattr(Supervised, "losses", looking)
    found = replay(folder)
    (labeled,) = found.images
    assert len(labeled) == 2
    assert {*labeled} <= {f"2007_{number:06d}" for number in range(1, 7)}
    assert len({round(float(one), 2) for one in seen[-3:]}) == 1  # the very batch, in each precision


def test_all_micro_batches_of_the_step_are_made_again(broken, monkeypatch):
    seen = []
    losses = Supervised.losses

    def looking(self, batch, progress):
        found = losses(self, batch, progress)
        seen.append(found["loss"].item())
        return found

    folder = broken(2, 1e38, save_every="1", batch=4, accumulate=2)
    monkeypatch.setattr(Supervised, "losses", looking)
    found = replay(folder)
    (labeled,) = found.images
    assert len(labeled) == 4
    *_, double = found.repeats
    assert double.precision == "fp64"
    assert double.losses["loss"] == pytest.approx(sum(seen[-2:]) / 2)
    assert seen[-1] != seen[-2]


def test_an_update_that_breaks_the_weights_is_no_fault_of_the_loss(tiny, voc_root):
    trainer = Trainer(tiny("supervised", data=voc_root(), steps=3, lr=1e38, backbone_lr=1.0))
    with pytest.raises(UsageError, match="not finite"):
        trainer.train()
    found = replay(trainer.folder)
    assert found.save == 0  # before the first save: from the weights that the run began with
    assert found.last in (1, 2)
    assert found.what


def test_without_a_save_the_run_s_first_steps_are_made_again(broken):
    folder = broken(3, math.nan, log_every=100, steps=5)
    found = replay(folder)
    assert (found.save, found.last) == (0, 3)
    assert found.what == "network.classifier.weight, after a step of finite gradients"
    assert found.cure is None
    assert all(repeat.finite for repeat in found.repeats)


def test_a_sound_run_is_told_so(tiny, voc_root):
    recipe = tiny("cac", data=voc_root(), steps=3)
    folder = Trainer(recipe).train().out
    found = replay(folder)
    assert (found.save, found.last, found.what, found.repeats) == (3, 3, None, ())
    with pytest.raises(UsageError, match=r"no recipe\.json"):
        replay(folder / "nowhere")


def test_a_save_that_is_broken_itself_is_refused(tiny, voc_root):
    trainer = Trainer(tiny("supervised", data=voc_root(), lr=1e38, backbone_lr=1.0, on_nan="ignore"))
    trainer.train()
    with pytest.raises(UsageError, match="not finite in the save of step 3 already"):
        replay(trainer.folder)


class Dividing(nn.Module):
    def forward(self, x):
        masked = x.masked_fill(x > 2, -math.inf).softmax(0)  # a constant that is meant
        return masked / (x - x)


def test_the_first_operation_is_named_with_its_module():
    network = nn.Sequential(nn.Linear(3, 3), Dividing())
    with FirstNonFinite(network) as watch:
        network(torch.tensor([[1.0, 2, 3]]))
    assert watch.first == "aten::div.Tensor in 1"
    x = torch.zeros(2, requires_grad=True)
    with FirstNonFinite(network) as watch:
        loss = x.sqrt().sum()
        watch.backward = True
        loss.backward()
    assert watch.first == "aten::div.Tensor in the backward pass"
    assert not x.grad.isfinite().all()
