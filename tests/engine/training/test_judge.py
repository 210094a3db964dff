"""Evaluations of a run: which step is the best, and the files that hold its networks."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from semiseg.engine.checkpoint import load_network
from semiseg.engine.evaluation import memory
from semiseg.engine.evaluation.inference import evaluate
from semiseg.engine.evaluation.scores import Scores
from semiseg.engine.protocol import Evaluation
from semiseg.engine.report import write_report
from semiseg.engine.run import Run
from semiseg.engine.training import judge
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.state import load_save
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError


@pytest.fixture
def scored(monkeypatch):
    """Makes the next evaluations find these IoUs of class 1, which no other class is beside."""

    def make(*scores):
        left = iter(scores)

        def evaluate_each(network, records, classes, protocols, **options):
            counts, score = np.zeros((len(classes), len(classes)), np.int64), next(left)
            if not math.isnan(score):
                hit = round(100_000 * score)
                counts[:2, 1] = 100_000 - hit, hit
            return [Scores(counts, classes, background=False)]

        monkeypatch.setattr(judge, "evaluate_each", evaluate_each)

    return make


@pytest.mark.parametrize(("protocol", "best"), [("cac-whole", 1), ("whole", 2)])
def test_a_run_selects_its_best_by_the_protocol(tiny, voc_root, scored, protocol, best):
    scored(0.7004, 0.70049, 0.7003)
    recipe = tiny("supervised", data=voc_root(), eval_every=1, evaluation=Evaluation(protocol=protocol))
    assert Trainer(recipe).train().best_step == best


def test_best_and_last_are_scores_of_the_log_and_have_checkpoints_of_their_own(tiny, voc_root):
    root = voc_root()
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(4)))  # few: scores are not all 0
    recipe = tiny("supervised", data=root, network="cps", steps=6, eval_every=1, lr=0.3)
    result = Trainer(recipe.replace(evaluation=Evaluation())).train()
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    scores = [line["val/miou"] for line in lines if "val/miou" in line]
    assert len(scores) == 6
    assert max(scores) > min(scores)
    assert (result.best, result.last) == (max(scores), scores[-1])
    assert result.best_step == 1 + scores.index(max(scores))
    for name, step in (("best", result.best_step), ("last", 6)):
        saved = load_network(result.out / f"checkpoints/{name}.safetensors")
        assert (saved.header.step, saved.header.miou) == (step, scores[step - 1])


@pytest.mark.parametrize(
    ("captured", "said"), [(True, "pass --graph off, or cut it and its mask"), (False, "; cut it and its mask")]
)
def test_where_a_graph_leaves_too_little_memory_to_evaluate_its_flag_is_named(
    tiny, voc_root, monkeypatch, captured, said
):
    monkeypatch.setattr(judge, "is_tried", lambda recipe, precision: captured)
    trainer = Trainer(tiny("supervised", data=voc_root()))
    monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: 1000)
    with pytest.raises(UsageError, match=said):
        trainer.judge.scores()


@pytest.mark.parametrize(("best", "beside"), [("teacher", "student"), ("student", "teacher")])
def test_teacher_and_student_are_both_judged_and_saved(tiny, voc_root, best, beside):
    root = voc_root()
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(4)))
    recipe = tiny("mean_teacher", data=root, steps=2, eval_every=1, lr=0.3)
    recipe = recipe.replace(method=replace(recipe.method, best=best, ema=0.9), evaluation=Evaluation())
    result = Trainer(recipe).train()
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "val/miou" in line][-1]
    assert result.last == last["val/miou"] != last[f"val/{beside}/miou"]
    assert result.beside == {beside: last[f"val/{beside}/miou"]}
    files = result.out / "checkpoints"
    first, other = (load_network(files / f"{name}.safetensors") for name in ("last", f"last-{beside}"))
    assert (first.header.miou, other.header.miou) == (last["val/miou"], last[f"val/{beside}/miou"])
    assert not torch.equal(first.network.classifier.weight, other.network.classifier.weight)
    assert (files / f"best-{beside}.safetensors").is_file()
    state = load_save(result.out / "checkpoints", pytest.fail)[1]["method"]
    prefix = {"teacher": "teacher.network.", "student": "student."}
    for kind, network in ((best, first.network), (beside, other.network)):
        assert torch.equal(state[f"{prefix[kind]}classifier.weight"], network.classifier.weight)
    page = write_report(result.out).read_text()
    assert f"of the {beside}<b>{100 * result.beside[beside]:.2f} %" in page


def test_a_damaged_best_network_is_told_and_replaced(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, steps=4, eval_every=2)
    stopping = [signal.SIGTERM]

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating") and stopping:
            signal.raise_signal(stopping.pop())

    with pytest.raises(Stopped):
        Trainer(recipe, stop).train()
    best = recipe.runtime.out / "checkpoints/best.safetensors"
    whole = best.read_bytes()
    best.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(UsageError, match="damaged"):
        evaluate(recipe.runtime.out, device="cpu")
    notes = []
    result = Trainer(recipe.replace(resume=True), lambda event: notes.append(event.text)).train()
    assert [note for note in notes if note.startswith("warning: ") and "best.safetensors: damaged" in note]
    assert result.best_step == load_network(result.out).header.step == 4


def test_a_score_that_is_no_number_is_never_the_best(tiny, voc_root, scored):
    scored(math.nan, 0.3, math.nan, 0.2)
    recipe = tiny("supervised", data=voc_root(), steps=4, eval_every=1, on_nan="ignore")
    result = Trainer(recipe).train()
    assert (result.best, result.best_step, result.last) == (0.3, 2, 0.2)
    assert load_network(result.out).header.step == 2
    assert "30.00 %" in write_report(result.out).read_text()
    scored(math.nan)
    with pytest.raises(UsageError, match="validation: mIoU is no number"):
        Trainer(recipe.replace(on_nan="stop", out=result.out.parent / "stops")).train()


@pytest.mark.parametrize(
    ("scores", "patience", "ends"),
    [
        ((0.3, 0.4, 0.4, 0.39), 2, 4),
        ((0.3, 0.2, 0.4, 0.3, 0.5, 0.1), 2, 6),
        ((0.3, 0.2), 1, 2),
        ((math.nan, math.nan, math.nan), 3, 3),
        ((0.3, 0.1, 0.1, 0.1, 0.1, 0.1), None, 6),
    ],
)
def test_a_run_ends_where_its_patience_does(tiny, voc_root, scored, scores, patience, ends):
    scored(*scores)
    recipe = tiny("supervised", data=voc_root(), steps=6, eval_every=1, patience=patience, on_nan="ignore")
    told = []
    result = Trainer(recipe, lambda event: told.append(event.text)).train()
    assert (result.steps, Run.open(result.out).log[-1]["step"]) == (ends, ends)
    assert load_network(result.out / "checkpoints/last.safetensors").header.step == ends
    if not math.isnan(scores[0]):
        assert (result.best, result.last) == (max(scores), scores[-1])
    assert any(text.startswith("--patience") and f"ends after step {ends}" in text for text in told) is (ends < 6)


def test_a_run_that_has_lost_patience_trains_no_step_when_it_goes_on(tiny, voc_root, scored):
    """It was killed before its result was written."""
    recipe = tiny("supervised", data=voc_root(), steps=6, eval_every=1, patience=2)
    scored(0.3, 0.2, 0.1)
    Trainer(recipe).train()
    scored(0.1)
    assert Trainer(recipe.replace(resume=True)).train().steps == 3
    scored(0.4, 0.1, 0.1)
    result = Trainer(recipe.replace(resume=True, patience=4)).train()
    assert (result.steps, result.best_step) == (6, 4)


def test_patience_is_of_evaluations_however_far_apart(tiny, voc_root, scored):
    recipe = tiny("supervised", data=voc_root(), steps=12, eval_every=4, patience=3)
    scored(0.3, 0.2)

    def stop(event):
        if event.kind == "note" and event.values.get("step") == 8:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped after step 8"):
        Trainer(recipe, stop).train()
    scored(0.2, 0.25)
    assert Trainer(recipe.replace(resume=True, eval_every=1)).train().steps == 10


def test_a_run_without_any_score_has_no_best(tiny, voc_root, monkeypatch):
    monkeypatch.setattr(
        judge, "evaluate_each", lambda network, records, classes, *_, **__: [Scores(np.zeros((21, 21), int), classes)]
    )
    result = Trainer(tiny("supervised", data=voc_root(), on_nan="ignore")).train()
    assert (result.to_dict()["best"], result.best_step) == (None, -1)
    assert load_network(result.out).header.step == 3
    assert write_report(result.out).is_file()
