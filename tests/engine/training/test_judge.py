"""Which evaluation of a run is the best one."""

from __future__ import annotations

import numpy as np
import pytest

from semiseg.engine.evaluation.scores import Scores
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training import judge
from semiseg.engine.training.trainer import Trainer


@pytest.mark.parametrize(("protocol", "best"), [("cac-whole", 1), ("whole", 2)])
def test_a_run_selects_its_best_by_the_protocol(tiny, voc_root, monkeypatch, protocol, best):
    hits = iter([70_040, 70_049, 70_030])

    def evaluate(network, records, classes, protocol, **options):
        counts = np.zeros((len(classes), len(classes)), np.int64)
        hit = next(hits)
        counts[:2, 1] = 100_000 - hit, hit  # the IoU of class 1 is hit / 100,000
        return Scores(counts, classes, background=False)

    monkeypatch.setattr(judge, "evaluate", evaluate)
    recipe = tiny("supervised", data=voc_root(), eval_every=1, evaluation=Evaluation(protocol=protocol))
    assert Trainer(recipe).train().best_step == best
