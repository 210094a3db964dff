"""`semiseg replay`: what it says, and with which exit code."""

from __future__ import annotations

import json
import math

import pytest

from semiseg.engine.methods.supervised import Supervised
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError


def test_a_broken_run_is_told_with_exit_code_1(semiseg, tiny, voc_root, monkeypatch):
    losses = Supervised.losses
    monkeypatch.setattr(
        Supervised,
        "losses",
        lambda self, batch, progress: {
            name: loss * (math.nan if progress >= 0.5 else 1) for name, loss in losses(self, batch, progress).items()
        },
    )
    trainer = Trainer(tiny("supervised", data=voc_root(), steps=4, save_every="1"))
    with pytest.raises(UsageError, match="not finite any more at step 3"):
        trainer.train()
    code, text, _ = semiseg("replay", trainer.folder)
    assert code == 1
    assert "not finite at step 3, after the save of step 2: the loss (supervised)" in text
    assert "labelled images of the step: 2007_00000" in text
    assert "aten::mul.Tensor in the loss" not in text  # the constant of the test is meant, as those of masks are
    assert "no precision has it finite: lower --lr" in text
    code, text, _ = semiseg("replay", trainer.folder, "--json")
    document = json.loads(text)
    assert (code, document["save"], document["last"], document["finite"]) == (1, 2, 3, False)
    assert [repeat["precision"] for repeat in document["repeats"]] == ["fp32", "fp64"]
    assert document["cure"] is None


def test_a_sound_run_is_told_with_exit_code_0(semiseg, tiny, voc_root, tmp_path):
    root = voc_root()
    out = Trainer(tiny("supervised", data=root, steps=1)).train().out
    code, text, err = semiseg("replay", out, "--data", root, "--device", "cpu")
    assert (code, text.splitlines()[-1]) == (0, f"{out}: everything is finite from the save at step 1 to step 1"), err
    code, _, err = semiseg("replay", tmp_path)
    assert (code, err.startswith(f"semiseg: {tmp_path}: not the folder of a run")) == (2, True)
