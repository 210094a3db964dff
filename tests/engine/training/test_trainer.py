"""Whole runs on tiny data: what a run leaves behind, going on, starting from a checkpoint."""

from __future__ import annotations

import itertools
import json
import math
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine.checkpoint import load_network
from semiseg.engine.evaluation.inference import evaluate, predict
from semiseg.engine.methods import METHODS
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training.state import load_state
from semiseg.engine.training.trainer import Stopped, Trainer
from semiseg.pipelines.errors import UsageError


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_log_checkpoints_and_result(tiny, voc_root, method):
    result = Trainer(tiny(method, data=voc_root())).train()
    assert (result.labeled, result.unlabeled) == (3, 0 if method == "supervised" else 3)
    lines = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3]
    wanted = {"loss", "loss/supervised", "lr", "images_per_s", "data_wait_pct", "memory_gib", "eta_s"}
    wanted |= {"cac": {"loss/contrastive"}, "supervised": set()}.get(method, {"loss/cps"})
    assert wanted <= set(trained[-1])
    assert lines[-1]["val/miou"] == result.last == result.best
    for name in ("recipe.json", "environment.json", "result.json", "checkpoints/best.safetensors"):
        assert (result.out / name).is_file()
    assert list((result.out / "tensorboard").iterdir())
    assert not list(result.out.rglob("*.part"))


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
        saved = load_network(result.out / f"checkpoints/{name}.safetensors").header
        assert (saved.step, saved.miou) == (step, scores[step - 1])


def test_the_checkpoint_alone_evaluates_to_the_same_score(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("cps", data=root)).train()
    document = evaluate(result.out, device="cpu")
    assert document["miou"] == pytest.approx(result.best, abs=1e-6)
    assert document["images"] == 3
    assert set(document) == {"miou", "iou", "pixel_accuracy", "protocol", "images"}


def test_predict_writes_masks_colours_and_overlays(tiny, voc_root, tmp_path):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    folder, count = predict(result.out, root / "JPEGImages", device="cpu")
    assert (folder, count) == (result.out / "predictions", 9)
    for kind, mode in (("masks", "L"), ("colours", "RGB"), ("overlays", "RGB")):
        from PIL import Image

        picture = Image.open(folder / kind / "2007_000001.png")
        assert (picture.mode, picture.size) == (mode, (56, 40))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_stopped(tiny, voc_root, number):
    """Stopped after step 2 of 4, it ends with the weights of a run that was never stopped."""
    root = voc_root()
    recipe = {"data": root, "steps": 4, "eval_every": 2}
    whole = Trainer(tiny("cac", **recipe, out=root / "whole")).train()

    def stop(event):
        if (event.kind, event.text) == ("progress", "evaluating"):
            signal.raise_signal(number)

    with pytest.raises(Stopped, match=r"after step 2; .*--resume") as stopped:
        Trainer(tiny("cac", **recipe, out=root / "halves"), stop).train()
    assert stopped.value.signal == number
    second = Trainer(tiny("cac", **recipe, out=root / "halves", resume=True))
    assert second.first == 2
    halves = second.train()
    one, two = (load_network(out / "checkpoints/last.safetensors").network for out in (whole.out, halves.out))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    with pytest.raises(UsageError, match="finished"):
        Trainer(tiny("cac", **recipe, out=root / "halves", resume=True))
    steps = [json.loads(line)["step"] for line in (halves.out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"crop": 48}, "crop was 32"), ({"lr": 0.5}, "lr was"), ({"decay": "weights"}, "decay was all")],
)
def test_resume_refuses_another_recipe(tiny, voc_root, changes, said):
    root = voc_root()
    Trainer(tiny("supervised", data=root)).train()
    with pytest.raises(UsageError, match=said):
        Trainer(tiny("supervised", data=root, resume=True, **changes))


def test_a_folder_where_a_run_has_begun_is_refused(tiny, voc_root):
    root = voc_root()
    Trainer(tiny("supervised", data=root))
    with pytest.raises(UsageError, match="delete it"):
        Trainer(tiny("supervised", data=root))


def test_init_starts_from_a_checkpoint(tiny, voc_root):
    root = voc_root()
    result = Trainer(tiny("supervised", data=root)).train()
    saved = load_network(result.out).network.state_dict()
    again = Trainer(tiny("cps", data=root, init=result.out, out=root / "again"))
    for name, tensor in again.method.branch1.state_dict().items():
        torch.testing.assert_close(tensor, saved[name])
    with pytest.raises(UsageError, match="another network"):
        Trainer(tiny("cps", data=root, init=result.out, out=root / "third", head_width=24))


def losses_of(recipe) -> list[float]:
    """Of every step of a whole run."""
    lines = (Trainer(recipe).train().out / "log.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_memory_formats_agree(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps", steps=1)
    last, first = (
        losses_of(recipe.replace(channels_last=channels_last, out=root / f"{channels_last}"))
        for channels_last in (True, False)
    )
    assert last == pytest.approx(first, rel=1e-4)


def test_a_compiled_run_has_the_losses_of_a_plain_one(tiny, voc_root):
    """With the network that has no dropout: compiled code draws other random numbers."""
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps")
    torch.compiler.reset()
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="compil"):
        Trainer(recipe.replace(compile=True, out=root / "refused")).train()  # so it does compile
    plain = losses_of(recipe.replace(out=root / "plain"))
    fused = losses_of(recipe.replace(compile=True, out=root / "fused"))
    assert fused[0] == pytest.approx(plain[0], rel=1e-4)
    assert fused == pytest.approx(plain, rel=0.02)  # steps carry roundings on


def test_images_that_differ_by_their_extension_keep_it(tiny, voc_root, tmp_path):
    from PIL import Image

    result = Trainer(tiny("supervised", data=voc_root())).train()
    (tmp_path / "mine").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / "mine" / name)
    folder, count = predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")
    assert count == 3
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert predict(result.out, tmp_path / "mine", tmp_path / "mine" / "out", device="cpu")[1] == 3


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, voc_root):
    root = voc_root()
    recipe = tiny("supervised", data=root, network="cps", steps=8, eval_every=2, log_every=50, batch=2)

    trainer = Trainer(recipe)
    steps = itertools.count(1)

    def poison(module, _):
        if module.training and next(steps) == 3:
            with torch.no_grad():
                trainer.method.network.classifier.bias[0] = math.nan

    trainer.method.network.backbone.register_forward_pre_hook(poison)
    with pytest.raises(UsageError, match=r"step 4: the loss is not finite; the last good checkpoint is .*last"):
        trainer.train()
    saved = load_network(trainer.folder / "checkpoints/last.safetensors")
    assert saved.header.step == 2
    assert all(tensor.isfinite().all() for tensor in saved.network.state_dict().values())
    assert load_state(trainer.folder / "checkpoints/last.state.pt")["steps_done"] == 2


def test_a_loss_that_is_no_number_is_told_with_the_log_too(tiny, voc_root):
    trainer = Trainer(tiny("supervised", data=voc_root(), steps=8, eval_every=8, lr=1e18, backbone_lr=1.0))
    with pytest.raises(UsageError, match=r"step [2-7]: the loss is not finite; nothing has been saved. Lower --lr"):
        trainer.train()


def test_an_miou_that_is_no_number_stops_the_run(tiny, folder_root):
    root = folder_root()
    for name in ("a006", "a007"):  # those of val.txt
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(root / f"masks/{name}.png")
    recipe = tiny("supervised", layout="folder", data=root)
    with pytest.raises(UsageError, match="no pixel of the validation masks counts"):
        Trainer(recipe).train()


def test_runs_of_the_same_second_have_folders_of_their_own(tiny, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-120000")
    recipe = tiny("supervised", data=voc_root(), out=None)
    folders = [Trainer(recipe).folder.name for _ in range(3)]
    assert folders == [f"supervised_voc-20260101-120000{tail}" for tail in ("", "-2", "-3")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "classes.txt").write_text("car\nground\ntree\n"), "classes: number 0 was ground"),
        (lambda root: (root / "images/a011.jpg").unlink(), "unlabeled: 1 gone .a011 for one"),
        (lambda root: (root / "val.txt").write_text("a007\n"), "unlabeled: 1 new|val: 1 gone"),
    ],
)
def test_data_that_changed_since_the_run_began_are_refused(tiny, folder_root, change, said):
    root = folder_root()
    recipe = tiny("cps", layout="folder", data=root, split="draw:4@0")
    Trainer(recipe)
    change(root)
    with pytest.raises(UsageError, match=rf"--resume: the data has changed since .*{said}"):
        Trainer(recipe.replace(resume=True))


def test_init_of_other_classes_is_refused(tiny, folder_root):
    root = folder_root()
    recipe = tiny("supervised", layout="folder", data=root)
    out = Trainer(recipe).train().out
    for text, said in (
        ("car\nground\ntree\n", "in another order"),
        ("ground\ncar\nbush\n", "'tree' it was trained on"),
    ):
        (root / "classes.txt").write_text(text)
        with pytest.raises(UsageError, match=said):
            Trainer(recipe.replace(init=out, out=root / "second"))


def test_a_checkpoint_is_scored_by_the_names_of_its_classes(tiny, folder_root):
    root, other = folder_root(), folder_root(root="other")
    recipe = tiny("supervised", layout="folder", data=root, steps=6, network="cps", lr=0.3)
    out = Trainer(recipe).train().out
    (other / "classes.txt").write_text("tree\nground\ncar\n")
    for mask in (other / "masks").iterdir():
        Image.fromarray(np.array([1, 2, 0], np.uint8)[np.asarray(Image.open(mask))]).save(mask)
    first, second = (evaluate(out, data, device="cpu") for data in (root, other))
    assert first == second
    assert len({round(iou, 6) for iou in first["iou"].values()}) > 1
    (other / "classes.txt").write_text("tree\nground\nbus\n")
    with pytest.raises(UsageError, match="the class 'car' it was trained on"):
        evaluate(out, other, device="cpu")
