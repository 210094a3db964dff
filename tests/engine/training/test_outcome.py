"""What two runs have come to is compared bit for bit."""

from __future__ import annotations

import math

import pytest
import torch

from semiseg.engine.training.outcome import differences, outcome
from semiseg.engine.training.state import load_save, write_save
from semiseg.engine.training.trainer import Trainer


def test_what_differs_is_named():
    one = {"a": torch.ones(2), "b": 1, "c": 2}
    assert differences(one, {"a": torch.ones(2), "b": 1, "c": 2}) == []
    assert differences(one, {"a": torch.tensor([1, 2.0]), "b": 1, "d": 2}) == ["a", "c", "d"]


def test_bits_are_compared_and_not_values():
    one = {"nan": torch.tensor(math.nan), "zero": torch.tensor(0.0), "kind": torch.zeros(2), "view": torch.ones(2, 3).T}
    assert differences(one, {name: value.clone() for name, value in one.items()}) == []
    other = {"nan": one["nan"], "zero": torch.tensor(-0.0), "kind": torch.zeros(2).double(), "view": torch.ones(3, 2)}
    assert differences(one, other) == ["zero", "kind"]


def test_an_outcome_holds_weights_optimizer_random_numbers_and_log_but_no_times(tiny, voc_root):
    root = voc_root()
    recipe = tiny("mean_teacher", data=root)
    first, same, other = (
        outcome(Trainer(recipe.replace(out=root / name, seed=seed)).train().out)
        for name, seed in (("first", 1), ("same", 1), ("other", 2))
    )
    assert differences(first, same) == []
    different = differences(first, other)
    wanted = ("best/classifier.weight", "best-student/classifier.weight", "method/student.classifier.weight")
    assert {*wanted, "step/optimizer/state/0/momentum_buffer", "random/cpu", "log/loss/1", "log/val/3"} <= {*first}
    assert {*wanted, "step/optimizer/state/0/momentum_buffer", "random/cpu", "log/loss/1"} <= {*different}


def test_whatever_a_save_holds_is_compared_but_for_times_and_options(tiny, voc_root):
    folder = Trainer(tiny("fixmatch", data=voc_root())).train().out
    end, (_, state) = outcome(folder), load_save(folder / "checkpoints", pytest.fail)
    state["step"]["scaler"] = {"scale": 512.0, "growth_tracker": 3}
    state["meters"]["sums"]["loss"] = torch.tensor([0.5])
    state["xray"]["told"] = ["something"]
    state["warned"] = not state["warned"]
    state["seconds"] += 1
    state["step"]["optimizer"]["param_groups"][0]["lr"] = 1.0
    write_save(folder / "checkpoints", state["steps_done"], state, {}, None)
    assert {*differences(end, outcome(folder))} == {
        *("step/scaler", "step/scaler/scale", "step/scaler/growth_tracker"),
        *("meters/sums", "meters/sums/loss", "xray/told", "warned"),
    }
